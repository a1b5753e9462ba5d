//! The files of the repository, and what was found in them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 5] = ["target", "iris-data", "build", "dist", "__pycache__"];

/// A text file of the repository.
pub(crate) struct File {
    /// Its path from the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// The file at that path from the root.
    pub(crate) fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(root().join(path));
        let text = text.unwrap_or_else(|error| panic!("{path}: failed to read: {error}"));
        Self { path: path.to_owned(), text }
    }

    /// Its lines, numbered from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Whether it is, or lies below, one of these paths. Folders end in `/`.
    pub(crate) fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| match place.ends_with('/') {
            true => self.path.starts_with(place),
            false => self.path == *place,
        })
    }
}

/// The repository's root: where cargo runs the test, or where it was built if something else runs it.
pub(crate) fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into()).into()
    })
}

/// Every text file whose name ends so, in the order of paths. Hidden folders hold nothing of ours but `.ci`.
pub(crate) fn files(endings: &[&str]) -> Vec<File> {
    let mut paths = Vec::new();
    collect(root(), &mut paths);
    paths.sort();
    let wanted = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| endings.iter().any(|ending| name.ends_with(ending)))
    };
    let files = paths.into_iter().filter(wanted).map(|path| {
        let inside = path.strip_prefix(root()).expect("the walk starts at the root");
        File::read(&inside.to_string_lossy())
    });
    files.collect()
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{dir:?}: {error}"));
    for entry in entries {
        let path = entry.unwrap_or_else(|error| panic!("{dir:?}: {error}")).path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let hidden = name.starts_with('.') && name != ".ci";
        if path.is_symlink() || hidden || name.ends_with(".egg-info") {
            continue;
        }
        match path.is_dir() {
            true if SKIPPED.contains(&name.as_str()) => {}
            true => collect(&path, paths),
            false => paths.push(path),
        }
    }
}

/// Faults, each with its place and what to do.
#[derive(Default)]
pub(crate) struct Faults(Vec<String>);

impl Faults {
    pub(crate) fn add(&mut self, path: &str, line: usize, what: impl AsRef<str>) {
        self.0.push(format!("{path}:{line}: {}", what.as_ref()));
    }

    /// Fails with all of them at once.
    pub(crate) fn end(self) {
        assert!(self.0.is_empty(), "\n{}\n", self.0.join("\n"));
    }
}

/// Compares the generated blocks of a page, by name, with what the code makes of them; with UPDATE_DOCS, writes them.
pub(crate) fn compare_generated(path: &str, blocks: impl IntoIterator<Item = (String, String)>) {
    let mut page = File::read(path).text;
    let mut stale = Vec::new();
    for (name, block) in blocks {
        let begin = format!("<!-- generated: {name} -->\n");
        let start = page.find(&begin).unwrap_or_else(|| panic!("{path}: no {begin}")) + begin.len();
        let len = page[start..].find("<!-- end -->").expect("every generated block has an end");
        if page[start..start + len] != block {
            page.replace_range(start..start + len, &block);
            stale.push(name);
        }
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(root().join(path), page).expect("the page can be written");
        return;
    }
    assert!(
        stale.is_empty(),
        "{path}: {stale:?} differ from the code: run `UPDATE_DOCS=1 cargo test --test tidy`"
    );
}

/// Whether `word` stands in `text` between characters that are not part of a word.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(word).any(|(start, _)| {
        let (before, after) = (&text[..start], &text[start + word.len()..]);
        !is_part(before.chars().next_back()) && !is_part(after.chars().next())
    })
}

/// A line of Rust without its comment and without what stands in its string literals. Literals of several lines are not
/// followed; what they hold is code to this function, so a rule may find too much there and never too little.
pub(crate) fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut rest = line;
    loop {
        let quote = rest.find('"').unwrap_or(rest.len());
        if let Some(comment) = rest[..quote].find("//") {
            return code + &rest[..comment];
        }
        code += &rest[..quote];
        if quote == rest.len() {
            return code;
        }
        // The character literal '"' begins no string.
        let is_char = rest[..quote].ends_with('\'') && rest[quote..].starts_with("\"'");
        rest = &rest[quote + 1..];
        if !is_char {
            rest = &rest[end_of_literal(rest)..];
        }
    }
}

fn end_of_literal(text: &str) -> usize {
    let mut escaped = false;
    for (index, c) in text.char_indices() {
        match c {
            '"' if !escaped => return index + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    text.len()
}

#[test]
fn strings_and_comments_are_no_code() {
    assert_eq!(code_of(r#"let a = "word"; // word"#), "let a = ; ");
    assert_eq!(code_of(r#"let a = "\"word"; b"#), "let a = ; b");
    assert_eq!(code_of(r#"if c == '"' { word }"#), "if c == '' { word }");
    assert!(has_word("a word {", "word") && !has_word("a(word_of)", "word"));
}

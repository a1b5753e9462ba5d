//! A shell script in place of acting, for those who review what runs as root.

use std::fmt::Write as _;

use crate::changes::{Change, Undo};
use crate::findings::Fix;
use crate::plan::Plan;
use crate::state::{STATE_FILE, State};

const INFALLIBLE: &str = "writing to a String cannot fail";
/// Ends what a file is made of; no file of ours has such a line, and one of somebody else's that has is written otherwise.
const END: &str = "IRIS_TUNE_END";

const HEAD: &str = "\
set -eu

# put FILE MODE: what comes in becomes FILE, as a whole or not at all.
put() {
  mkdir -p \"${1%/*}\"
  cat > \"$1.iris-tune\"
  chmod \"$2\" \"$1.iris-tune\"
  mv \"$1.iris-tune\" \"$1\"
}
# keep FILE: what is there stays beside it, the first time.
keep() {
  if [ -e \"$1\" ] && [ ! -e \"$1.before-iris-tune\" ]; then cp -p \"$1\" \"$1.before-iris-tune\"; fi
}
";

/// What `apply` would do. The script keeps copies of files and knows no undo.
pub fn apply(plan: &Plan) -> String {
    let mut text = format!(
        "#!/bin/sh\n# What `iris-tune apply` does for {} connections, profile {}, as a script for root.\n\
         # What was there stays beside it as FILE.before-iris-tune; `iris-tune undo` knows nothing of this.\n",
        plan.request.connections,
        plan.request.profile.name(),
    );
    text += HEAD;
    for file in &plan.files {
        writeln!(text, "\nkeep {}", quoted(&file.path)).expect(INFALLIBLE);
        put(&mut text, &file.path, 0o644, file.contents.as_bytes());
    }
    text += "\n";
    for setting in plan.settings.iter().filter(|setting| setting.is_due()) {
        let was = setting.current.as_deref().unwrap_or("unknown");
        let set = quoted(&format!("{}={}", setting.name, setting.wanted));
        writeln!(text, "sysctl -w {set} # was {was}").expect(INFALLIBLE);
    }
    for setting in plan.settings.iter().filter(|setting| setting.by == Fix::Host) {
        let set = quoted(&format!("{}={}", setting.name, setting.wanted));
        writeln!(text, "# on the host: sysctl -w {set}").expect(INFALLIBLE);
    }
    if plan.files.iter().any(|file| file.path.contains("/systemd/")) {
        text += "if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi\n";
    }
    text
}

/// What `undo` would do.
pub fn undo(undo: &Undo) -> String {
    let mut text = "#!/bin/sh\n# What `iris-tune undo` does, as a script for root.\n".to_owned();
    text += HEAD;
    text += "\n";
    for change in &undo.files {
        match change {
            Change::Put { path, contents, .. } => put(&mut text, path, 0o644, &contents.0),
            Change::Restore { path, before: Some(kept) } => {
                put(&mut text, path, kept.mode, &kept.contents.0);
                let (owner, path) = (format!("{}:{}", kept.uid, kept.gid), quoted(path));
                writeln!(text, "chown {owner} {path}\nchmod {:o} {path}", kept.mode)
                    .expect(INFALLIBLE);
            }
            Change::Restore { path, before: None } => {
                writeln!(text, "rm -f {}", quoted(path)).expect(INFALLIBLE);
            }
        }
    }
    for set in &undo.settings {
        let set = quoted(&format!("{}={}", set.name, set.value));
        writeln!(text, "sysctl -w {set}").expect(INFALLIBLE);
    }
    for path in undo.edited.iter().chain(&undo.reset) {
        writeln!(text, "# left, because somebody else has changed it since: {path}")
            .expect(INFALLIBLE);
    }
    if undo.left.as_ref().is_none_or(|left: &State| left.files.is_empty()) {
        writeln!(text, "rm -f {STATE_FILE}").expect(INFALLIBLE);
        for folder in &undo.folders {
            writeln!(text, "rmdir {} 2>/dev/null || true", quoted(folder)).expect(INFALLIBLE);
        }
    }
    text
}

/// A file from what stands in the script: text between two lines, or any bytes by their octal numbers.
fn put(text: &mut String, path: &str, mode: u32, bytes: &[u8]) {
    let path = quoted(path);
    let lines = std::str::from_utf8(bytes).ok().filter(|lines| {
        lines.ends_with('\n') && !lines.contains('\0') && lines.lines().all(|line| line != END)
    });
    match lines {
        Some(lines) => write!(text, "put {path} {mode:o} <<'{END}'\n{lines}{END}\n"),
        None => {
            let octal: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
            writeln!(text, "printf '{octal}' | put {path} {mode:o}")
        }
    }
    .expect(INFALLIBLE);
}

/// As one word of a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

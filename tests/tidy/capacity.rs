//! `docs/CAPACITY.md` has the sheets that the code works out.

use iris::capacity::{Plan, show};

use crate::tree::{File, root};

const PAGE: &str = "docs/CAPACITY.md";
/// Daily users of the sheets.
const SHEETS: [u64; 3] = [1_000_000, 100_000_000, 5_000_000_000];

#[test]
fn the_sheets_are_those_of_the_code() {
    let sheet = |dau: u64| {
        let plan = Plan::recorded(dau);
        (format!("sheet {dau}"), show::sheet(&plan, &plan.sheet()))
    };
    let basis = ("basis".to_owned(), show::basis(&Plan::recorded(SHEETS[2])));
    let mut page = File::read(PAGE).text;
    let mut stale = Vec::new();
    for (name, text) in SHEETS.map(sheet).into_iter().chain([basis]) {
        let block = format!("\n```text\n{}\n```\n\n", text.trim_end());
        let begin = format!("<!-- generated: {name} -->\n");
        let start = page.find(&begin).unwrap_or_else(|| panic!("{PAGE}: no {begin}")) + begin.len();
        let len = page[start..].find("<!-- end -->").expect("every generated block has an end");
        if page[start..start + len] != block {
            page.replace_range(start..start + len, &block);
            stale.push(name);
        }
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(root().join(PAGE), page).expect("the page can be written");
        return;
    }
    assert!(
        stale.is_empty(),
        "{PAGE}: {stale:?} differ: run `UPDATE_DOCS=1 cargo test --test tidy`"
    );
}

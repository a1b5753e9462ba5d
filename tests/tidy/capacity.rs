//! `docs/CAPACITY.md` has the sheets that the code works out.

use iris::capacity::{Plan, show};

use crate::tree::compare_generated;

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
    let blocks = SHEETS.map(sheet).into_iter().chain([basis]);
    let fenced =
        blocks.map(|(name, text)| (name, format!("\n```text\n{}\n```\n\n", text.trim_end())));
    compare_generated(PAGE, fenced);
}

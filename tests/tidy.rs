//! What compilers and lints cannot check: that pages say what the code does, and that rules of the whole tree hold.
//!
//! A failure names file and line, what is wrong and what to do. Exceptions are listed here, each with its reason; one
//! that is no longer needed fails, too. Tables between `<!-- generated: NAME -->` and `<!-- end -->` in
//! `docs/OPERATING.md` and `docs/CAPACITY.md` come from the code: `UPDATE_DOCS=1 cargo test --test tidy` writes them anew.

#[path = "tidy/architecture.rs"]
mod architecture;
#[path = "tidy/capacity.rs"]
mod capacity;
#[path = "tidy/dependencies.rs"]
mod dependencies;
#[path = "tidy/monitoring.rs"]
mod monitoring;
#[path = "tidy/operating.rs"]
mod operating;
#[path = "tidy/sources.rs"]
mod sources;
#[path = "tidy/tree.rs"]
mod tree;

//! `iris capacity`

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::args::Capacity;
use super::exit::{Exit, Failure};
use super::print;
use crate::capacity::assumed::parse_regions;
use crate::capacity::{Plan, show};

/// Bytes of a report, at most: a row for each second of a day, and then some.
const REPORT_BYTES_MAX: u64 = 64 << 20;

pub(super) fn run(args: &Capacity) -> anyhow::Result<Exit> {
    let plan = plan(args)?;
    let sheet = plan.sheet();
    match args.json {
        true => print(&format!("{:#}\n", show::json(&plan, &sheet))),
        false => print(&format!("{}\n{}", show::sheet(&plan, &sheet), show::basis(&plan))),
    }
    Ok(Exit::Ok)
}

fn plan(args: &Capacity) -> Result<Plan, Failure> {
    let usage = |text: String| Failure::new(Exit::Usage, text);
    let mut plan = Plan::recorded(args.dau);
    plan.tls = !args.clear;
    if let Some(regions) = &args.regions {
        plan.regions = parse_regions(regions).map_err(|why| usage(format!("--regions: {why}")))?;
    }
    let set = |plan: &mut Plan| {
        let mut given = args.assumed.given().into_iter();
        given.try_for_each(|(what, value)| plan.assumed.set(what, value, "given")).map_err(usage)
    };
    // Files may say how many connections an edge holds; a flag wins over them.
    set(&mut plan)?;
    for file in &args.from {
        let text = read(file).map_err(usage)?;
        let name = file.display().to_string();
        plan.measured.take(&mut plan.assumed, &text, &name).map_err(|why| {
            usage(format!(
                "--from {name}: {why}; see iris capacity --help for runs that can be used"
            ))
        })?;
    }
    set(&mut plan)?;
    Ok(plan)
}

fn read(file: &Path) -> Result<String, String> {
    let name = file.display();
    let failed = |error| {
        format!("--from {name}: failed to read it: {error}; name a file that iris-loadgen wrote")
    };
    let mut text = String::new();
    let source: Box<dyn Read> = match file == Path::new("-") {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(File::open(file).map_err(failed)?),
    };
    source.take(REPORT_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > REPORT_BYTES_MAX {
        return Err(format!("--from {name}: larger than {REPORT_BYTES_MAX} bytes; name a report"));
    }
    Ok(text)
}

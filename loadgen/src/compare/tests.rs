use super::*;
use serde_json::json;

/// A directory of files, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("iris-compare-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str, run: &Value) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, run.to_string()).unwrap();
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn a_run(rate: f64, p99: f64) -> Value {
    json!({
        "scenario": "throughput", "valid": true, "connections": 10, "sent": 1000, "accepted": 1000,
        "lost": 0, "duplicates": 0, "reordered": 0, "corrupted": 0, "rejected": {}, "errors": {}, "not_sent": 0,
        "rate_per_s": rate, "latency_us": {"p50": 10.0, "p99": p99}, "generator": {"threads": 1},
        "server": {"cpu_seconds": 0.002},
        "environment": {"payload_bytes": 64, "rate": 0, "cores": 2, "kernel": "6.1"},
    })
}

/// Compares runs of these rates and percentiles: exit code and the file of --json.
fn compare(name: &str, a: &[Value], b: &[Value], force: bool) -> (u8, Value) {
    let place = Place::new(name);
    let files = |side: &str, runs: &[Value]| {
        let files =
            (0..).zip(runs).map(|(index, run)| place.file(&format!("{side}{index}.json"), run));
        files.collect::<Vec<_>>()
    };
    let json = place.0.join("out.json");
    let (a, b) = (files("a", a), files("b", b));
    let flags = CompareFlags { files: Vec::new(), a, b, json: Some(json.clone()), force };
    let code = run(&flags).unwrap();
    (code, serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap())
}

fn verdict_of<'a>(found: &'a Value, figure: &str) -> &'a Value {
    let changes = found["changes"].as_array().unwrap();
    &changes.iter().find(|change| change["figure"] == figure).unwrap()["verdict"]
}

#[test]
fn a_change_beyond_the_spread_of_repeats_counts_and_one_within_does_not() {
    let a = [a_run(100.0, 50.0), a_run(104.0, 52.0), a_run(98.0, 51.0)];
    let b = [a_run(95.0, 60.0), a_run(96.0, 61.0), a_run(101.0, 60.5)];
    let (code, found) = compare("noise", &a, &b, false);
    assert_eq!((code, &found["verdict"]), (EXIT_MISSED, &json!("worse")));
    assert_eq!(verdict_of(&found, "rate"), "within_noise");
    assert_eq!(verdict_of(&found, "p99"), "worse");
    assert_eq!(verdict_of(&found, "p50"), "same");
    let (code, found) = compare("back", &b, &a, false);
    assert_eq!((code, verdict_of(&found, "p99")), (0, &json!("better")));
}

#[test]
fn one_run_each_says_what_changed_and_judges_nothing() {
    let (code, found) = compare("single", &[a_run(100.0, 50.0)], &[a_run(10.0, 500.0)], false);
    assert_eq!((code, verdict_of(&found, "rate")), (0, &json!("noise_unknown")));
    let refused =
        found["changes"].as_array().unwrap().iter().find(|change| change["figure"] == "refused");
    assert_eq!(refused.unwrap()["a"].to_string(), "0.0", "and not -0");
    let rate = &found["changes"][0];
    assert_eq!((&rate["change_percent"], &rate["noise"]), (&json!(-90.0), &Value::Null));
}

#[test]
fn a_lost_message_is_worse_without_any_repeat() {
    let mut lossy = a_run(100.0, 50.0);
    lossy["lost"] = json!(1);
    let (code, found) = compare("lost", &[a_run(100.0, 50.0)], &[lossy], false);
    assert_eq!((code, verdict_of(&found, "lost")), (EXIT_MISSED, &json!("worse")));
}

#[test]
fn runs_of_other_loads_are_not_compared_unless_forced() {
    let mut other = a_run(100.0, 50.0);
    other["environment"]["payload_bytes"] = json!(1000);
    other["environment"]["kernel"] = json!("6.2");
    let (a, b) = ([a_run(100.0, 50.0)], [other]);
    let (code, found) = compare("other", &a, &b, false);
    assert_eq!((code, &found["verdict"]), (EXIT_INVALID, &json!("not_comparable")));
    let text = found["differences"][0].as_str().unwrap();
    assert!(text.starts_with("payload bytes: 64 in ") && text.contains("1000 in "), "{text}");
    assert_eq!(found["changes"], json!([]));
    let (code, found) = compare("forced", &a, &b, true);
    assert_eq!((code, &found["verdict"]), (0, &json!("no_worse")));
    assert!(found["circumstances"][0].as_str().unwrap().starts_with("kernel: "));
}

#[test]
fn an_invalid_run_is_not_compared() {
    let mut invalid = a_run(100.0, 50.0);
    invalid["valid"] = json!(false);
    let (code, found) = compare("invalid", &[invalid], &[a_run(100.0, 50.0)], false);
    assert_eq!(code, EXIT_INVALID);
    assert!(found["differences"][0].as_str().unwrap().contains("invalid"));
}

#[test]
fn what_is_no_run_is_refused_by_name() {
    let place = Place::new("no-run");
    let good = place.file("good.json", &a_run(1.0, 1.0));
    let error = |files: Vec<PathBuf>| {
        let flags = CompareFlags { files, a: Vec::new(), b: Vec::new(), json: None, force: true };
        format!("{:#}", run(&flags).unwrap_err())
    };
    let found = place.file("found.json", &json!({"kind": "capacity"}));
    assert!(error(vec![good.clone(), found]).contains("is a capacity, not a run"));
    let empty = place.file("empty.json", &json!({}));
    assert!(error(vec![empty, good.clone()]).contains("empty.json is no file"));
    assert!(error(vec![place.0.join("none.json"), good.clone()]).contains("cannot read"));
    assert!(error(vec![good]).contains("two files"));
}

#[test]
fn medians_and_spreads_are_of_sorted_values() {
    let mut values = [3.0, 1.0, 10.0, 2.0];
    assert_eq!((spread(&mut values), median(&values)), (Some(9.0), 2.5));
    assert_eq!((spread(&mut [7.0]), median(&[7.0])), (None, 7.0));
}

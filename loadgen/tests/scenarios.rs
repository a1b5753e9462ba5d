//! Each scenario against a small peer: first a sound one, then one for each thing that must be noticed.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod peer;

use clap::Parser;
use iris_loadgen::cli::Cli;
use iris_loadgen::report::{EXIT_INVALID, EXIT_MISSED, Report};
use iris_loadgen::scenario;
use iris_loadgen::series::Counted;
use peer::{Fault, Peer};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A directory with a key, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("iris-loadgen-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("dev.key"), "0123456789abcdef0123456789abcdef\n").unwrap();
        Self(dir)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Runs a scenario with a second to send in and a minute to drain, unless the line says otherwise: a sound run ends when
/// all has arrived, and a machine that is busy with other things may need long for it.
fn run(name: &str, addr: SocketAddr, line: &str) -> anyhow::Result<Report> {
    let place = Place::new(name);
    let mut args = format!("iris-loadgen {line} --addr {addr} --warmup 50ms --key ");
    args += place.0.join("dev.key").to_str().unwrap();
    for (flag, default) in [("--duration", "1s"), ("--drain-wait", "60s")] {
        if !line.contains(flag) {
            args += &format!(" {flag} {default}");
        }
    }
    scenario::run(Cli::try_parse_from(args.split(' ')).unwrap().scenario).unwrap()
}

fn sound(name: &str, line: &str) -> Report {
    let peer = Peer::start(Fault::None);
    let report = run(name, peer.addr, line).unwrap();
    assert_eq!(report.exit_code(), 0, "{}", report.table());
    report
}

/// What a run finds at a faulty peer. What never comes is waited for a few seconds; the rest is under way by then.
fn faulty(fault: Fault) -> Report {
    let peer = Peer::start(fault);
    let wait = match fault {
        Fault::Lose | Fault::Damage | Fault::Hang => "--drain-wait 5s",
        _ => "",
    };
    run(&format!("{fault:?}"), peer.addr, format!("throughput -n 4 {wait}").trim()).unwrap()
}

#[test]
fn throughput_over_two_threads_delivers_everything_it_sent() {
    let report = sound("throughput", "throughput -n 8 --threads 2 --payload 200");
    assert!(report.rate_per_s > 0.0, "{}", report.table());
    assert_eq!((report.accepted, report.delivered), (report.sent, report.sent));
    assert!(report.latency_us.unwrap().p50 > 0.0 && report.delivered_latency_us.is_some());
}

#[test]
fn the_seconds_of_a_run_add_up_to_the_run() {
    let report = sound("seconds", "throughput -n 8 --threads 2 --duration 2500ms");
    let rows = report.series.rows();
    assert!(rows.len() >= 3, "{rows:?}");
    let sum = |of: fn(&Counted) -> u64| rows.iter().map(|row| of(&row.counted)).sum::<u64>();
    assert_eq!(sum(|counted| counted.accepted), report.accepted);
    assert_eq!((sum(|counted| counted.logins), sum(|counted| counted.failed)), (8, 0));
    assert_eq!(sum(|counted| counted.delivered), report.delivered);
    assert!(rows.iter().any(|row| row.latency.is_some() && row.connections == 8));
    assert!(
        report.spectra.accepted.steps.last().unwrap().total == report.latency_us.unwrap().count
    );
}

#[test]
fn idle_holds_its_users_and_answers_heartbeats() {
    let report = sound("idle", &format!("idle -n 60 --threads 2 --pid {}", std::process::id()));
    assert_eq!((report.login.count, report.sent), (60, 0));
    assert!(report.rate_per_s > 0.0);
    let server = report.server.unwrap();
    assert!(server.rss_bytes > 0 && server.kernel.is_none(), "60 say nothing of the kernel");
}

#[test]
fn latency_has_one_message_under_way_and_a_floor() {
    let report = sound("latency", "latency -n 2 --floor 400ms");
    assert_eq!(report.connections_open, 4);
    let (latency, floor) = (report.latency_us.unwrap(), report.floor_us.unwrap());
    assert!(floor.echo_p50 > 0.0 && floor.sync_p50 > 0.0);
    let ratio = latency.p50 / floor.sum_p50;
    assert!((report.ratio_p50.unwrap() - ratio).abs() < 0.01);
}

#[test]
fn an_open_loop_sends_at_its_rate_and_tells_service_time_apart() {
    let peer = Peer::start(Fault::None);
    let line = "latency -n 4 --rate 2000 --floor 0s --burst 2 --duration 300ms";
    let report = run("rate", peer.addr, line).unwrap();
    // Eight slices of 87.5 ms at 2,000/s, in whole bursts; what a busy machine could not send in time is counted, and
    // what it sent too late is told.
    assert_eq!(report.sent + report.not_sent, 8 * 176, "{}", report.table());
    assert!(report.ratio_p50.is_none(), "{}", report.table());
    for reason in &report.invalid_reasons {
        assert!(reason.contains("the generator started") || reason.contains("busy"), "{reason}");
    }
    let (corrected, raw) = (report.latency_us.unwrap(), report.service_latency_us.unwrap());
    assert!(corrected.p50 >= raw.p50 && corrected.count == raw.count);
}

#[test]
fn publishers_send_one_message_a_second_each_to_a_subscriber_of_their_own() {
    let report = run("p2p", Peer::start(Fault::None).addr, "p2p -n 200").unwrap();
    assert_eq!((report.connections_open, report.environment.rate), (400, 200));
    assert!(report.accepted > 0 && report.is_clean(), "{}", report.table());
    assert!(report.latency_us.is_some() && report.delivered_latency_us.is_some());
}

#[test]
fn a_fan_in_puts_all_senders_into_one_inbox() {
    let report = sound("fanin", "fanin -n 21 --threads 2");
    assert!(report.delivered > 0 && report.delivered == report.accepted);
}

#[test]
fn offline_fills_to_its_count_and_drains_it_all() {
    let report = sound("offline", "offline -n 5 --messages 1000 --duration 60s");
    assert_eq!((report.sent, report.delivered), (1000, 1000));
    assert_eq!(report.drain.unwrap().count, 1000);
}

#[test]
fn a_composite_holds_all_and_lets_a_few_send_in_an_open_loop() {
    let line = "composite -n 60 --active 10% --hold 20ms --rate 300 --threads 2";
    let peer = Peer::start(Fault::None);
    let report = run("composite", peer.addr, line).unwrap();
    assert_eq!((report.login.count, report.connections_active), (60, Some(6)));
    assert!(report.hold.unwrap().seconds >= 0.0 && report.is_clean(), "{}", report.table());
    assert!(report.accepted > 0 && report.delivered == report.accepted, "{}", report.table());
    assert_eq!(report.environment.rate, 300);
}

#[test]
fn a_fan_out_reaches_all_recipients_with_several_in_a_send() {
    let report = sound("fanout", "fanout -n 50 --senders 2 --to 20 --threads 2");
    assert_eq!((report.connections_open, report.recipients_per_send), (52, Some(20)));
    assert!(report.accepted > 0 && report.delivered > 10 * report.accepted, "{}", report.table());
}

#[test]
fn all_come_back_after_a_storm_and_read_what_waited() {
    let report = sound("storm", "storm -n 40 --rounds 3 --waiting 5 --threads 2");
    assert_eq!((report.sent, report.delivered), (600, 600), "{}", report.table());
    assert_eq!(report.storms.len(), 3);
    for storm in &report.storms {
        assert!(storm.half_s <= storm.most_s && storm.most_s <= storm.all_s, "{storm:?}");
        assert!(storm.all_s.is_some() && storm.logins_per_s > 0.0, "{storm:?}");
    }
    assert_eq!(report.returns.unwrap().cut, 120);
    assert!(report.rate_per_s > 0.0);
}

#[test]
fn users_who_come_and_go_lose_nothing_and_get_nothing_twice() {
    let line = "churn -n 20 --churn 100 --rate 2000 --threads 2";
    let report = run("churn", Peer::start(Fault::None).addr, line).unwrap();
    assert!(report.is_clean() && report.accepted > 0, "{}", report.table());
    assert_eq!(report.accepted + report.rejected.values().sum::<u64>(), report.sent);
    let returns = report.returns.unwrap();
    assert!(returns.cut > 0 && returns.dropped == 0, "{}", report.table());
}

#[test]
fn those_who_did_not_read_get_everything_afterwards() {
    let line = "slow -n 10 --stalled 30% --rate 1000";
    let report = run("slow", Peer::start(Fault::None).addr, line).unwrap();
    assert_eq!(report.stall.unwrap().users, 3);
    assert!(report.is_clean() && report.delivered == report.accepted, "{}", report.table());
    assert!(report.delivered_stalled_latency_us.is_some(), "{}", report.table());
}

#[test]
fn few_senders_reach_all_who_did_not_read() {
    let line = "slow -n 300 --stalled 100% --senders 2 --rate 40";
    let report = run("slow", Peer::start(Fault::None).addr, line).unwrap();
    assert_eq!(
        (report.stall.as_ref().unwrap().users, report.recipients_per_send),
        (300, Some(256))
    );
    assert!(report.is_clean() && report.delivered > report.accepted, "{}", report.table());
}

#[test]
fn a_file_is_done_phase_by_phase() {
    let place = Place::new("file");
    let file = place.0.join("short.toml");
    let phases = [
        "do = 'connect'\nto = 10\nrate = 200",
        "do = 'connect'",
        "do = 'hold'\ntime = '20ms'",
        "do = 'ramp'\nfrom = 0\nto = 400\ntime = '500ms'",
        "do = 'churn'\ncuts = 40\nrate = 400\ntime = '500ms'",
        "do = 'storm'",
        "do = 'send'\nrate = 400\ntime = '250ms'",
        "do = 'stop'",
        "do = 'send'\nrate = 9\ntime = '9h'",
    ];
    let phases: String = phases.iter().map(|phase| format!("[[phase]]\n{phase}\n")).collect();
    std::fs::write(&file, format!("users = 20\n{phases}")).unwrap();
    let line = format!("run {}", file.display());
    let report = run("phases", Peer::start(Fault::None).addr, &line).unwrap();
    assert!(report.is_clean() && report.accepted > 0, "{}", report.table());
    let online: Vec<u64> = report.phases.iter().map(|phase| phase.online).collect();
    assert_eq!(online, [10, 20, 20, 20, 20, 20, 20], "{}", report.table());
    assert_eq!((report.phases[5].cut, report.storms.len()), (20, 1));
    let sent: u64 = report.phases.iter().map(|phase| phase.sent).sum();
    assert_eq!((sent, report.phases[3].cut), (report.sent, 0));
}

#[test]
fn lost_messages_are_counted_and_miss_the_objective() {
    let report = faulty(Fault::Lose);
    assert_eq!((report.lost, report.exit_code()), (4, EXIT_MISSED), "{}", report.table());
}

#[test]
fn repeated_messages_are_counted_and_miss_the_objective() {
    let report = faulty(Fault::Repeat);
    assert_eq!((report.duplicates, report.lost), (4, 0), "{}", report.table());
    assert_eq!(report.exit_code(), EXIT_MISSED);
}

#[test]
fn reordered_messages_are_counted_and_not_lost() {
    let report = faulty(Fault::Delay);
    assert_eq!((report.reordered, report.lost), (4, 0), "{}", report.table());
    assert_eq!(report.exit_code(), EXIT_MISSED);
}

#[test]
fn damaged_messages_are_counted_and_do_not_count_as_delivered() {
    let report = faulty(Fault::Damage);
    assert_eq!((report.corrupted, report.lost), (4, 4), "{}", report.table());
    assert_eq!(report.exit_code(), EXIT_MISSED);
}

#[test]
fn a_refused_message_is_neither_accepted_nor_lost_and_the_sender_goes_on() {
    let report = faulty(Fault::Refuse);
    assert_eq!((report.rejected["overloaded"], report.lost), (4, 0), "{}", report.table());
    assert!(report.accepted > 4 * 7 && report.exit_code() == 0, "{}", report.table());
}

#[test]
fn messages_without_an_answer_make_a_run_invalid() {
    let report = faulty(Fault::Hang);
    assert_eq!(report.exit_code(), EXIT_INVALID);
    let reasons = report.invalid_reasons.join("; ");
    assert!(reasons.contains("no answer"), "{reasons}");
}

#[test]
fn an_answer_nobody_waits_for_makes_a_run_invalid() {
    let report = faulty(Fault::AnswerTwice);
    assert_eq!((report.errors["answer_to_nothing"], report.exit_code()), (4, EXIT_INVALID));
}

#[test]
fn a_connection_that_ends_makes_a_run_invalid_and_is_named() {
    let report = faulty(Fault::CloseConnection);
    assert_eq!(report.exit_code(), EXIT_INVALID);
    assert!(
        report.errors.keys().any(|reason| reason.contains("closed") || reason.contains("reset"))
    );
}

#[test]
fn a_run_without_a_connection_left_does_not_wait_for_its_end() {
    let (peer, began) = (Peer::start(Fault::CloseConnection), Instant::now());
    let report = run("gone", peer.addr, "throughput -n 4 --duration 10m").unwrap();
    assert_eq!(report.exit_code(), EXIT_INVALID);
    assert!(began.elapsed() < Duration::from_secs(300));
}

#[test]
fn a_refused_token_says_which_key_to_use() {
    let peer = Peer::start(Fault::RefuseTokens);
    let error = format!("{:#}", run("token", peer.addr, "idle -n 3").unwrap_err());
    assert!(error.contains("--key") && error.contains("token_signature"), "{error}");
}

#[test]
fn no_server_says_how_to_start_one() {
    let addr = Peer::start(Fault::None).addr;
    let nobody = SocketAddr::new("127.0.0.99".parse().unwrap(), addr.port());
    let error = format!("{:#}", run("nobody", nobody, "throughput -n 2").unwrap_err());
    assert!(error.contains("iris serve --dev"), "{error}");
}

#[test]
fn an_odd_number_cannot_pair() {
    let addr = "127.0.0.1:1".parse().unwrap();
    let error = format!("{:#}", run("odd", addr, "throughput -n 3").unwrap_err());
    assert!(error.contains("even"), "{error}");
}

#[test]
fn a_server_process_that_is_not_there_is_named() {
    let addr = "127.0.0.1:1".parse().unwrap();
    let error = format!("{:#}", run("pid", addr, "idle --pid 4294967295").unwrap_err());
    assert!(error.contains("--pid"), "{error}");
}

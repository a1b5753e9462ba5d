//! Runs over several workers against a small peer: what one of them sends another one receives, and all of it counts as in
//! one process. Workers that misbehave are ended with a reason.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod peer;

use clap::Parser;
use iris_loadgen::cli::Cli;
use iris_loadgen::fleet::WorkerFlags;
use iris_loadgen::fleet::serve::Waiting;
use iris_loadgen::fleet::wire::{FORMAT, Link, Said, Told, Used, VERSION, Welcome};
use iris_loadgen::report::{EXIT_INVALID, EXIT_MISSED, Report};
use iris_loadgen::scenario;
use peer::{Fault, Peer};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

/// A directory with a key and a secret, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("iris-loadgen-fleet-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("dev.key"), "0123456789abcdef0123456789abcdef\n").unwrap();
        std::fs::write(dir.join("secret"), "fedcba9876543210\n").unwrap();
        std::fs::write(dir.join("other"), "fedcba9876543211\n").unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Starts a worker that serves as long as this process lives.
    fn worker(&self, secret: Option<&str>) -> SocketAddr {
        let waiting = Waiting::open(&WorkerFlags {
            listen: "127.0.0.1:0".to_owned(),
            secret: secret.map(|name| self.path(name)),
            key: self.path("dev.key"),
        });
        let waiting = waiting.unwrap();
        let addr = waiting.addr().unwrap();
        std::thread::spawn(move || waiting.serve());
        addr
    }

    fn workers<const N: usize>(&self) -> String {
        [(); N].map(|()| self.worker(None).to_string()).join(",")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Runs a scenario with a second to send in; a machine too busy to have anything accepted in it gets longer.
fn run(peer: &Peer, line: &str) -> anyhow::Result<Report> {
    let report = run_for(peer, line, "1s")?;
    let is_too_short = report.invalid_reasons.iter().any(|why| why.contains("in the steady phase"));
    if is_too_short && !line.contains("--duration") {
        return run_for(peer, line, "20s");
    }
    Ok(report)
}

fn run_for(peer: &Peer, line: &str, duration: &str) -> anyhow::Result<Report> {
    let mut args = format!("iris-loadgen {line} --addr {} --warmup 50ms", peer.addr);
    for (flag, default) in [("--duration", duration), ("--drain-wait", "60s")] {
        if !line.contains(flag) {
            args += &format!(" {flag} {default}");
        }
    }
    scenario::run(Cli::try_parse_from(args.split(' ')).unwrap().scenario).unwrap()
}

#[test]
fn what_one_worker_sends_another_one_receives_and_all_of_it_is_accounted_for() {
    let place = Place::new("crossing");
    let workers = place.workers::<2>();
    for line in ["fanin -n 21", "fanout -n 50 --senders 2 --to 20", "throughput -n 8 --threads 2"] {
        let report =
            run(&Peer::start(Fault::None), &format!("{line} --workers {workers}")).unwrap();
        assert_eq!(report.exit_code(), 0, "{}", report.table());
        assert!(report.accepted > 0 && report.sent == report.accepted, "{}", report.table());
        assert_eq!((report.workers.len(), report.generator.processes), (2, 2));
        let sum = |of: fn(&iris_loadgen::report::WorkerReport) -> u64| {
            report.workers.iter().map(of).sum::<u64>()
        };
        assert_eq!(sum(|one| one.sent), report.sent, "{}", report.table());
        assert_eq!(sum(|one| one.delivered), report.delivered, "{}", report.table());
        let latency = report.latency_us.as_ref().unwrap();
        assert_eq!(report.spectra.accepted.steps.last().unwrap().total, latency.count);
        let rows = report.series.rows();
        assert_eq!(rows.iter().map(|row| row.counted.accepted).sum::<u64>(), report.accepted);
        assert!(rows.iter().any(|row| row.latency.is_some()), "{line}");
        assert!(
            report.workers.iter().all(|one| one.clock_drift_us.is_some() && one.gone.is_none())
        );
    }
}

#[test]
fn two_workers_give_the_same_counts_as_one_process() {
    let place = Place::new("counts");
    let workers = format!("--workers {}", place.workers::<2>());
    let alone = format!("--key {}", place.path("dev.key").display());
    for line in [
        "offline -n 6 --messages 1001 --duration 60s",
        "storm -n 40 --rounds 2 --waiting 5",
        "idle -n 61",
    ] {
        let [one, two] = [&alone, &workers].map(|flags| {
            let report = run(&Peer::start(Fault::None), &format!("{line} {flags}")).unwrap();
            assert_eq!(report.exit_code(), 0, "{}", report.table());
            let returns = report.returns.map(|returns| (returns.cut, returns.dropped));
            let messages = (report.sent, report.accepted, report.delivered);
            (messages, report.login.count, returns, report.connections_open)
        });
        assert_eq!(one, two, "{line}");
    }
}

#[test]
fn what_is_lost_repeated_reordered_or_damaged_between_workers_is_counted() {
    let place = Place::new("faults");
    let workers = place.workers::<3>();
    // Four senders, one inbox: three of them are of other workers than the inbox.
    for (fault, expected) in [
        (Fault::Lose, [4, 0, 0, 0]),
        (Fault::Repeat, [0, 4, 0, 0]),
        (Fault::Delay, [0, 0, 4, 0]),
        (Fault::Damage, [4, 0, 0, 4]),
    ] {
        let line = format!("fanin -n 5 --drain-wait 5s --workers {workers}");
        let report = run(&Peer::start(fault), &line).unwrap();
        let found = [report.lost, report.duplicates, report.reordered, report.corrupted];
        assert_eq!(found, expected, "{fault:?}: {}", report.table());
        assert_eq!(report.exit_code(), EXIT_MISSED, "{}", report.table());
    }
}

#[test]
fn what_ends_badly_on_a_worker_ends_badly_for_the_run() {
    let place = Place::new("ends");
    let line = format!("throughput -n 4 --drain-wait 5s --workers {}", place.workers::<2>());
    let report = run(&Peer::start(Fault::Refuse), &line).unwrap();
    assert_eq!((report.rejected["overloaded"], report.lost), (4, 0), "{}", report.table());
    for (fault, hint) in [
        (Fault::Hang, "no answer"),
        (Fault::AnswerTwice, "waited for no answer"),
        (Fault::CloseConnection, "connections failed or ended"),
    ] {
        let report = run(&Peer::start(fault), &line).unwrap();
        let reasons = report.invalid_reasons.join("; ");
        assert_eq!(report.exit_code(), EXIT_INVALID, "{fault:?}: {}", report.table());
        assert!(reasons.contains(hint) && !reasons.contains("worker"), "{fault:?}: {reasons}");
    }
    let error = format!("{:#}", run(&Peer::start(Fault::RefuseTokens), &line).unwrap_err());
    assert!(error.contains("--key") && error.contains("token_signature"), "{error}");
}

#[test]
fn a_worker_serves_one_run_after_the_other_and_only_those_who_have_its_secret() {
    let place = Place::new("secret");
    let worker = place.worker(Some("secret"));
    let line = |secret: &str| {
        let secret = match secret {
            "" => String::new(),
            name => format!(" --secret {}", place.path(name).display()),
        };
        format!("idle -n 4 --duration 100ms --workers {worker}{secret}")
    };
    let peer = Peer::start(Fault::None);
    for _ in 0..2 {
        let report = run(&peer, &line("secret")).unwrap();
        assert_eq!((report.exit_code(), report.login.count), (0, 4), "{}", report.table());
    }
    for (secret, hint) in [("other", "wrong secret"), ("", "wants a secret")] {
        let error = format!("{:#}", run(&peer, &line(secret)).unwrap_err());
        assert!(error.contains(hint) && error.contains(&worker.to_string()), "{error}");
    }
    let report = run(&peer, &line("secret")).unwrap();
    assert_eq!(report.exit_code(), 0, "refusals leave it as it was: {}", report.table());
    let open = place.worker(None);
    let line = line("secret").replace(&worker.to_string(), &open.to_string());
    let error = format!("{:#}", run(&peer, &line).unwrap_err());
    assert!(error.contains("has not the secret"), "{error}");
}

#[test]
fn a_worker_that_anybody_could_use_is_not_started() {
    let place = Place::new("open");
    let flags = |secret: Option<&str>| WorkerFlags {
        listen: "0.0.0.0:0".to_owned(),
        secret: secret.map(|name| place.path(name)),
        key: place.path("dev.key"),
    };
    let error = format!("{:#}", Waiting::open(&flags(None)).err().unwrap());
    assert!(error.contains("--secret"), "{error}");
    assert!(Waiting::open(&flags(Some("secret"))).is_ok());
}

/// A worker that logs in and then does what it wants.
fn impostor(version: &'static str, act: impl FnOnce(Link) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut link = Link::try_from(listener.accept().unwrap().0).unwrap();
        let (version, nonce) = (version.to_owned(), "1".to_owned());
        link.send(&Said::Hello { format: FORMAT, version, nonce, wants_proof: false }).unwrap();
        if !matches!(link.receive(1 << 20), Ok(Told::Login { .. })) {
            return;
        }
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let (host, boot, used) = ("here".to_owned(), boot.trim().to_owned(), Used::default());
        link.send(&Said::Welcome(Welcome { proof: None, host, boot, used })).unwrap();
        act(link);
    });
    addr
}

/// Gets ready, and gives the link once the run has begun.
fn begin(mut link: Link) -> Link {
    loop {
        match link.receive(1 << 20).unwrap() {
            Told::Clock => {
                let moment = iris_loadgen::fleet::wire::Moment { own_ns: 1, unix_ns: 1 };
                link.send(&Said::Clock(moment)).unwrap();
            }
            Told::Plan(_) => link.send(&Said::Ready("all".to_owned())).unwrap(),
            Told::Orders(_) => return link,
            Told::Login { .. } => panic!("it is logged in"),
        }
    }
}

/// A run of a real worker and this one.
fn beside(name: &str, other: SocketAddr) -> anyhow::Result<Report> {
    let place = Place::new(name);
    let workers = format!("{},{other}", place.worker(None));
    run(&Peer::start(Fault::None), &format!("throughput -n 8 --duration 10m --workers {workers}"))
}

#[test]
fn a_worker_that_dies_ends_the_run_and_is_named() {
    let dies = impostor(VERSION, |link| drop(begin(link)));
    let error = match beside("dies", dies) {
        Ok(report) => {
            assert_eq!(report.exit_code(), EXIT_INVALID, "{}", report.table());
            assert!(report.workers[1].gone.is_some() && report.workers[0].gone.is_none());
            report.invalid_reasons.join("; ")
        }
        // Nobody had logged in yet.
        Err(error) => format!("{error:#}"),
    };
    assert!(error.contains("worker 2 of 2") && error.contains("died"), "{error}");
}

#[test]
fn a_worker_that_fails_or_makes_no_sense_is_named_with_what_it_said() {
    let fails = impostor(VERSION, |link| {
        begin(link).send(&Said::Failed("no more sockets".to_owned())).unwrap();
    });
    let raves = impostor(VERSION, |link| begin(link).send(&"What?").unwrap());
    for (name, other, hint) in [("fails", fails, "no more sockets"), ("raves", raves, "no sense")] {
        let error = match beside(name, other) {
            Ok(report) => report.invalid_reasons.join("; "),
            Err(error) => format!("{error:#}"),
        };
        assert!(error.contains("worker 2 of 2") && error.contains(hint), "{error}");
    }
}

#[test]
fn a_worker_of_another_version_is_refused() {
    let other = impostor("0.0.0-other", |_| ());
    let error = format!("{:#}", beside("version", other).unwrap_err());
    assert!(error.contains("0.0.0-other") && error.contains("worker 2 of 2"), "{error}");
}

#[test]
fn each_worker_has_a_user_at_least() {
    let place = Place::new("plan");
    let line = format!("idle -n 3 --workers {},{}", place.worker(None), place.worker(None));
    let few = format!("idle -n 1 --workers {},{}", place.worker(None), place.worker(None));
    let peer = Peer::start(Fault::None);
    assert!(format!("{:#}", run(&peer, &few).unwrap_err()).contains("2 workers for 1 users"));
    assert_eq!(run(&peer, &line).unwrap().exit_code(), 0);
}

//! Scenarios where nothing answers a message, against a small NATS peer: what counts is what arrives. Real brokers are
//! tested elsewhere.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use clap::Parser;
use iris_loadgen::cli::Cli;
use iris_loadgen::report::{EXIT_MISSED, Report};
use iris_loadgen::scenario;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Where each subject goes.
type Subscriptions = Arc<Mutex<HashMap<String, TcpStream>>>;

/// Starts a peer that loses the message with this number, from 0, of each connection.
fn start(lost: Option<u32>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let subscriptions = Subscriptions::default();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let subscriptions = subscriptions.clone();
            // A connection ends when the generator does.
            std::thread::spawn(move || drop(serve(stream, &subscriptions, lost)));
        }
    });
    addr
}

fn serve(
    mut stream: TcpStream,
    subscriptions: &Subscriptions,
    lost: Option<u32>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"INFO {\"max_payload\":1048576}\r\n")?;
    let (mut input, mut line, mut published) =
        (BufReader::new(stream.try_clone()?), String::new(), 0);
    while input.read_line(&mut line)? > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["CONNECT", ..] => {}
            ["PING"] => stream.write_all(b"PONG\r\n")?,
            ["SUB", subject, _] => {
                subscriptions.lock().unwrap().insert(subject.to_owned(), stream.try_clone()?);
            }
            ["PUB", subject, bytes] => {
                let mut payload = vec![0; bytes.parse::<usize>().unwrap() + 2];
                input.read_exact(&mut payload)?;
                published += 1;
                if Some(published - 1) != lost {
                    let message =
                        [format!("MSG {subject} 1 {bytes}\r\n").as_bytes(), &payload].concat();
                    let subscriptions = subscriptions.lock().unwrap();
                    let mut to = &subscriptions[subject];
                    to.write_all(&message)?;
                }
            }
            _ => panic!("not expected of a load generator: {line:?}"),
        }
        line.clear();
    }
    Ok(())
}

fn run(addr: SocketAddr, line: &str) -> Report {
    let args =
        format!("iris-loadgen {line} --driver nats --addr {addr} --warmup 50ms --duration 1s");
    scenario::run(Cli::try_parse_from(args.split(' ')).unwrap().scenario).unwrap().unwrap()
}

#[test]
fn what_arrives_is_what_was_sent_and_nothing_is_accepted() {
    for line in ["throughput -n 6 --threads 2", "latency --floor 0s", "fanin -n 5 --window 3"] {
        let report = run(start(None), line);
        assert_eq!(report.exit_code(), 0, "{}", report.table());
        assert_eq!((report.delivered, report.accepted), (report.sent, 0), "{line}");
        assert!(report.rate_per_s > 0.0 && report.rate_per_s == report.delivered_per_s);
        assert!(report.latency_us.is_none() && report.delivered_latency_us.is_some());
        assert!(report.guarantee.starts_with("none"));
        let seconds = report.series.rows();
        assert!(seconds.iter().any(|row| row.latency.is_some()), "of deliveries: {line}");
        assert!(report.spectrum().count > 0, "{line}");
    }
}

#[test]
fn a_message_that_never_comes_is_lost_and_the_next_one_opens_the_window() {
    let report = run(start(Some(1)), "throughput -n 4 --window 2 --drain-wait 1s");
    assert_eq!((report.lost, report.exit_code()), (4, EXIT_MISSED), "{}", report.table());
    assert!(report.delivered > 4, "{}", report.table());
}

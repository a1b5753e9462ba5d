use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

/// A server that gives these pages, one for each connection, and then closes.
fn serve(pages: Vec<String>) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for page in pages {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).unwrap() > 0);
            let length = page.len();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{page}").unwrap();
        }
    });
    format!("http://{addr}/metrics").parse().unwrap()
}

fn page(sends: u64, syncs: u64, connections: u64) -> String {
    format!(
        "# TYPE iris_sends_total counter\niris_sends_total {sends}\n# TYPE iris_connections gauge\n\
         iris_connections {connections}\n# TYPE iris_wal_sync_seconds histogram\n\
         iris_wal_sync_seconds_sum {}\niris_wal_sync_seconds_count {syncs}\n",
        syncs as f64 / 1000.0
    )
}

fn until_answered(scraper: &mut Scraper) {
    let until = Instant::now() + Duration::from_secs(60);
    while !scraper.is_answered() {
        assert!(Instant::now() < until, "the thread answers");
        std::thread::yield_now();
    }
}

#[test]
fn counters_become_rates_histograms_means_and_gauges_stay() {
    let endpoint = serve(vec![page(10, 5, 3), page(110, 9, 4)]);
    let mut scraper = Scraper::start(endpoint, &[]).unwrap();
    let names = ["iris_sends_total_per_s", "iris_connections", "iris_wal_sync_seconds_mean"];
    assert_eq!(scraper.names(), names);
    assert_eq!(scraper.figures(), [None, None, None], "nothing was asked for");
    scraper.ask();
    until_answered(&mut scraper);
    let figures = scraper.figures();
    assert!(figures[0].unwrap() > 0.0, "{figures:?}");
    assert_eq!((figures[1], figures[2]), (Some(4.0), Some(0.001)));
    scraper.ask();
    until_answered(&mut scraper);
    assert_eq!(scraper.figures(), [None, None, None], "the server is gone");
}

#[test]
fn an_address_without_metrics_is_known_before_the_run() {
    let nobody: Endpoint = "http://127.0.0.1:1/metrics".parse().unwrap();
    let error = format!("{:#}", Scraper::start(nobody, &[]).err().unwrap());
    assert!(error.contains("--metrics http://127.0.0.1:1/metrics"), "{error}");
    let other = serve(vec!["up 1\n".to_owned()]);
    let error = format!("{:#}", Scraper::start(other, &[]).err().unwrap());
    assert!(error.contains("--metric NAME"), "{error}");
    let other = serve(vec!["up 1\n".to_owned()]);
    let error = format!("{:#}", Scraper::start(other, &["down".to_owned()]).err().unwrap());
    assert!(error.contains("--metric down"), "{error}");
    let other = serve(vec!["up 1\n".to_owned()]);
    assert_eq!(Scraper::start(other, &["up".to_owned()]).unwrap().names(), ["up"]);
}

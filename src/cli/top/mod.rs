//! `iris top`

mod show;
mod view;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::args::Top;
use super::exit::{Exit, Failure};
use super::scrape::Scrape;
use super::status::{Node, addresses, ask_all};
use super::{http, token};
use view::{Look, View};

/// Between two looks.
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);
/// Time for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

pub(super) fn run(args: Top) -> anyhow::Result<Exit> {
    let interval = args.interval.0;
    if !INTERVALS.contains(&interval) {
        let text = "--interval: from 100ms to 1h; leave it out for 1s";
        return Err(Failure::new(Exit::Usage, text).into());
    }
    let addresses = addresses(args.admin, args.config)?;
    let secret = http::token(args.admin_token.as_deref())?;
    let is_screen = io::stdout().is_terminal() && !args.once && !args.json;
    let mut before = looks(&addresses, secret.as_deref());
    let mut due = Instant::now() + interval;
    loop {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // A look that took longer than the interval does not make the next ones hurry.
        due = Instant::now() + interval;
        let now = looks(&addresses, secret.as_deref());
        let views: Vec<View> = before.iter().zip(&now).map(|(a, b)| View::between(a, b)).collect();
        let at = token::unix_s();
        let text = match (args.json, is_screen || args.once) {
            (true, _) => format!("{}\n", show::json(&views, at)),
            (false, true) => show::table(&views, at),
            (false, false) => show::lines(&views, at),
        };
        let shown = if is_screen { draw(&text) } else { say(&text) };
        if args.once || shown.is_err() {
            let is_whole = views.iter().all(|view| view.error.is_none());
            return Ok(if is_whole { Exit::Ok } else { Exit::Unhealthy });
        }
        before = now;
    }
}

/// Looks at all nodes at once.
fn looks(addresses: &[String], secret: Option<&str>) -> Vec<Look> {
    let scrape = |node: &Node| {
        let reply = http::ask("GET", &node.admin, "/metrics", secret, ANSWER_MAX)?;
        match reply.status {
            200 => Ok((Instant::now(), Scrape::parse(&reply.body)?)),
            other => Err(format!("the server answered {other} to /metrics")),
        }
    };
    let asked = ask_all(addresses, secret);
    std::thread::scope(|scope| {
        let ask = |node: Node| {
            scope.spawn(move || {
                let metrics =
                    node.status.as_ref().map_err(Clone::clone).and_then(|_| scrape(&node));
                Look { node, metrics }
            })
        };
        let looks: Vec<_> = asked.into_iter().map(ask).collect();
        looks.into_iter().map(|look| look.join().expect("asking does not panic")).collect()
    })
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// Draws over what is there, without a moment in which the screen is empty. Lines that are too long are cut off and not
/// wrapped (DECAWM), which would shift all others.
fn draw(text: &str) -> io::Result<()> {
    let body = text.replace('\n', "\x1b[K\n");
    say(&format!("\x1b[H\x1b[?7l{body}\x1b[?7h\x1b[J"))
}

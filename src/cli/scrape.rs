//! Reads what `/metrics` says: the Prometheus text format, version 0.0.4, as far as Iris writes it (no timestamps).
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

/// Samples of one page, at most.
const SAMPLES_MAX: usize = 200_000;

/// A page of metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Scrape(Vec<Sample>);

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Sample {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }
}

impl Scrape {
    /// Reads a page. An error names the line that is none of such a page.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut samples = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = || format!("line {} of /metrics is no sample", index + 1);
            samples.push(sample(line).ok_or_else(wrong)?);
            if samples.len() > SAMPLES_MAX {
                return Err(format!("/metrics has more than {SAMPLES_MAX} samples"));
            }
        }
        Ok(Self(samples))
    }

    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }

    /// The sum of all samples of that name; `None`: there is none.
    pub(super) fn sum(&self, name: &str) -> Option<f64> {
        let mut values = self.of(name).map(|sample| sample.value);
        let first = values.next()?;
        Some(values.fold(first, |sum, value| sum + value))
    }

    /// The largest of them.
    pub(super) fn most(&self, name: &str) -> Option<f64> {
        self.of(name).map(|sample| sample.value).reduce(f64::max)
    }

    /// The smallest of them.
    pub(super) fn least(&self, name: &str) -> Option<f64> {
        self.of(name).map(|sample| sample.value).reduce(f64::min)
    }

    /// Sums of the samples of that name, one for each value of the label, in the order of the page.
    pub(super) fn by(&self, name: &str, label: &str) -> Vec<(String, f64)> {
        let mut sums: Vec<(String, f64)> = Vec::new();
        for sample in self.of(name) {
            let Some(value) = sample.label(label) else { continue };
            match sums.iter_mut().find(|(known, _)| known == value) {
                Some((_, sum)) => *sum += sample.value,
                None => sums.push((value.to_owned(), sample.value)),
            }
        }
        sums
    }
}

/// `name{label="value",...} number`
fn sample(line: &str) -> Option<Sample> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let end = line.find(|c: char| !is_name(c))?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() {
        return None;
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.strip_prefix(' ')?.trim().parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Labels up to the closing brace, and what comes after it.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = unquoted(quoted)?;
        labels.push((name.to_owned(), value));
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

/// A value up to its closing quote, with `\\`, `\"` and `\n` as what they stand for, and what comes after it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;
    use crate::metrics::text::Text;

    #[test]
    fn what_the_server_writes_is_read_back() {
        let mut text = Text::default();
        text.counters("a_total", "Of a.")
            .sample(&[("x", "q\"\\\n,}"), ("y", "1")], 3)
            .sample(&[("x", "b"), ("y", "2")], 0.5);
        text.gauges("g", "Of g.").sample(&[], 7);
        let page = Scrape::parse(&text.finish()).unwrap();
        assert_eq!(page.sum("a_total"), Some(3.5));
        assert_eq!(page.by("a_total", "x"), [("q\"\\\n,}".to_owned(), 3.0), ("b".to_owned(), 0.5)]);
        assert_eq!(
            (page.sum("g"), page.most("a_total"), page.least("a_total")),
            (Some(7.0), Some(3.0), Some(0.5))
        );
        assert_eq!((page.sum("a"), page.by("g", "x")), (None, vec![]));
    }

    #[test]
    fn a_whole_page_of_a_server_is_read() {
        let page = Registry::new(2, 3, 10).render();
        let samples = page.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(Scrape::parse(&page).unwrap().0.len(), samples);
    }

    #[test]
    fn what_is_no_page_is_refused_by_its_line() {
        for wrong in [
            "a",
            "a{",
            "a{x}",
            "a{x=\"} 1",
            "a{x=\"\\",
            "{x=\"y\"} 1",
            "a 1 2",
            "a one",
            " 1",
            "<html>",
        ] {
            let error = Scrape::parse(&format!("# HELP a b\n{wrong}\n")).unwrap_err();
            assert!(error.starts_with("line 2 "), "{wrong}: {error}");
        }
    }
}

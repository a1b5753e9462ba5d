//! Charts as SVG: lines over time or over percentiles, drawn the same for a page and for a picture.
//!
//! Colours stand in attributes, so that a renderer without style sheets draws the light version; a page overrides them by
//! class. Nothing is loaded and nothing is run: text is text, and what is under the pointer is said by `<title>`.

pub mod scale;

use scale::{Axis, Unit};

/// Size of a chart, in units of its view box.
pub const WIDTH: f64 = 880.0;
pub const HEIGHT: f64 = 270.0;
const LEFT: f64 = 68.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 52.0;
const BOTTOM: f64 = 30.0;

/// Line colours of the light version; told apart also by those who see no red or no green.
pub const COLOURS: [&str; 4] = ["#1f6feb", "#c2570c", "#8b2fc9", "#0f8a5f"];
const PAPER: &str = "#ffffff";
const INK: &str = "#1f2328";
const FAINT_INK: &str = "#656d76";
const GRID: &str = "#d8dee4";
const SHADE: &str = "#eef1f4";

/// A chart.
#[derive(Clone, PartialEq, Debug)]
pub struct Chart {
    /// In a word: its file and its place in a page.
    pub name: String,
    /// For people.
    pub title: String,
    /// What the values are.
    pub unit: Unit,
    /// From left to right.
    pub x: Axis,
    /// Whether values are drawn by their logarithm.
    pub is_log: bool,
    pub lines: Vec<Line>,
    /// Where nothing was measured, on the x axis.
    pub shaded: Vec<(f64, f64)>,
}

/// A line of a chart. Points without a value are gaps.
#[derive(Clone, PartialEq, Debug)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, Option<f64>)>,
}

impl Line {
    fn values(&self) -> impl Iterator<Item = f64> {
        self.points.iter().filter_map(|(_, value)| *value)
    }
}

impl Chart {
    /// Whether there is anything to draw.
    pub fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.values().next().is_none())
    }

    /// The whole chart.
    pub fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" id=\"chart-{}\" role=\"img\" aria-label=\"{}\" \
             viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"DejaVu Sans, sans-serif\" font-size=\"12\">\n\
             <rect class=\"paper\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"{PAPER}\"/>\n",
            escape(&self.name),
            escape(&self.title),
        );
        let y = self.y_axis();
        self.shades(&mut svg);
        self.grid(&y, &mut svg);
        self.head(&mut svg);
        for (index, line) in self.lines.iter().enumerate() {
            let (path, colour) = (self.path(line, &y), COLOURS[index % COLOURS.len()]);
            svg += &format!(
                "<path class=\"line line-{index}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" \
                 stroke-linejoin=\"round\" stroke-linecap=\"round\" d=\"{path}\"/>\n"
            );
        }
        self.hints(&mut svg);
        svg + "</svg>\n"
    }

    fn y_axis(&self) -> Axis {
        let all = self.lines.iter().flat_map(Line::values);
        let (low, high) = all.fold((f64::INFINITY, 0.0f64), |(low, high), value| {
            (if value > 0.0 { low.min(value) } else { low }, high.max(value))
        });
        match self.is_log && low.is_finite() {
            true => Axis::log(low, high),
            false => Axis::linear(high),
        }
    }

    fn at_x(&self, value: f64) -> f64 {
        LEFT + self.x.share(value) * (WIDTH - LEFT - RIGHT)
    }

    fn at_y(y: &Axis, value: f64) -> f64 {
        HEIGHT - BOTTOM - y.share(value) * (HEIGHT - TOP - BOTTOM)
    }

    fn shades(&self, svg: &mut String) {
        for (from, to) in &self.shaded {
            let (left, right) = (self.at_x(*from), self.at_x(*to));
            let (width, height) = ((right - left).max(0.0), HEIGHT - TOP - BOTTOM);
            *svg += &format!(
                "<rect class=\"shade\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\" \
                 fill=\"{SHADE}\"/>\n",
            );
        }
    }

    fn grid(&self, y: &Axis, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let mut mark = |path: String, x: f64, y: f64, anchor: &str, label: String| {
            *svg += &format!("<path class=\"grid\" stroke=\"{GRID}\" d=\"{path}\"/>\n");
            let of = format!("class=\"faint\" fill=\"{FAINT_INK}\" text-anchor=\"{anchor}\"");
            *svg += &text(&of, x, y, &label);
        };
        for tick in y.ticks() {
            let at = Self::at_y(y, tick);
            let path = format!("M{LEFT} {at:.1}H{right}");
            mark(path, LEFT - 8.0, at + 4.0, "end", self.unit.text(tick));
        }
        for tick in self.x.ticks() {
            let at = self.at_x(tick);
            // The last label ends with the chart, so that it is not cut off.
            let anchor = if at > right - 20.0 { "end" } else { "middle" };
            let path = format!("M{at:.1} {bottom}V{TOP}");
            mark(path, at, bottom + 18.0, anchor, self.x.label(tick));
        }
    }

    fn head(&self, svg: &mut String) {
        let of = format!("class=\"title\" fill=\"{INK}\" font-size=\"14\" font-weight=\"bold\"");
        *svg += &text(&of, 12.0, 20.0, &self.title);
        let mut left = LEFT;
        for (index, line) in self.lines.iter().enumerate() {
            let (colour, right) = (COLOURS[index % COLOURS.len()], left + 18.0);
            *svg += &format!(
                "<path class=\"line line-{index}\" stroke=\"{colour}\" stroke-width=\"3\" \
                 d=\"M{left:.1} 37H{right:.1}\"/>\n"
            );
            let of = format!("class=\"ink\" fill=\"{INK}\"");
            *svg += &text(&of, right + 6.0, 41.0, &line.name);
            // Letters of this size are at most some 7.3 units wide on average.
            left = right + 28.0 + 7.3 * line.name.chars().count() as f64;
        }
    }

    fn path(&self, line: &Line, y: &Axis) -> String {
        let mut path = String::new();
        let mut pen_is_down = false;
        for (x, value) in &line.points {
            let Some(value) = value else {
                pen_is_down = false;
                continue;
            };
            let (x, y) = (self.at_x(*x), Self::at_y(y, *value));
            path += &match pen_is_down {
                true => format!("L{x:.1} {y:.1}"),
                // A line of no length is a dot with round ends: a point between gaps is seen, too.
                false => format!("M{x:.1} {y:.1}h0"),
            };
            pen_is_down = true;
        }
        path
    }

    /// What is under the pointer: an invisible column for each point of the first line, with all values there.
    fn hints(&self, svg: &mut String) {
        let Some(first) = self.lines.first() else { return };
        let mut left = LEFT;
        for (index, (x, _)) in first.points.iter().enumerate() {
            let at = self.at_x(*x);
            let next =
                first.points.get(index + 1).map_or(WIDTH - RIGHT, |(next, _)| self.at_x(*next));
            let right = at.midpoint(next);
            let values = self.lines.iter().filter_map(|line| {
                let value = line.points.get(index).filter(|(at, _)| at == x)?.1?;
                Some(format!("{} {}", escape(&line.name), self.unit.text(value)))
            });
            let values: Vec<String> = values.collect();
            if !values.is_empty() && right > left {
                let (width, height) = (right - left, HEIGHT - TOP - BOTTOM);
                *svg += &format!(
                    "<rect class=\"hint\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\" \
                     fill-opacity=\"0\"><title>{}: {}</title></rect>\n",
                    self.x.label(*x),
                    values.join(", "),
                );
            }
            left = right;
        }
    }
}

/// What could be markup, as text.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            // Characters that XML has no way to write would make the charts unreadable.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn text(attributes: &str, x: f64, y: f64, text: &str) -> String {
    format!("<text {attributes} x=\"{x:.1}\" y=\"{y:.1}\">{}</text>\n", escape(text))
}

#[cfg(test)]
mod tests;

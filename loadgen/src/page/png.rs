//! A chart as a picture: the SVG of the page, drawn by resvg with a font of our own, so that it looks the same everywhere.

use crate::chart::Chart;
use anyhow::Context;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};
use std::sync::Arc;

/// DejaVu Sans, cut to the characters that charts have; `font/README.md` says how and under which licence.
const FONT: &[u8] = include_bytes!("font/DejaVuSans-subset.ttf");
/// Pixels of a unit, so that letters are sharp on screens of today.
const SCALE: f32 = 2.0;

/// Draws charts.
pub(super) struct Painter {
    options: Options<'static>,
}

impl Default for Painter {
    fn default() -> Self {
        let mut fonts = fontdb::Database::new();
        fonts.load_font_data(FONT.to_vec());
        fonts.set_sans_serif_family("DejaVu Sans");
        Self { options: Options { fontdb: Arc::new(fonts), ..Options::default() } }
    }
}

impl Painter {
    /// The bytes of a PNG file.
    pub(super) fn png(&self, chart: &Chart) -> anyhow::Result<Vec<u8>> {
        self.pixels(chart)?.encode_png().context("cannot make a PNG")
    }

    fn pixels(&self, chart: &Chart) -> anyhow::Result<Pixmap> {
        let tree = Tree::from_str(&chart.svg(), &self.options).context("cannot read the chart")?;
        let size = tree.size().to_int_size().scale_by(SCALE).context("the chart has no size")?;
        let mut pixmap =
            Pixmap::new(size.width(), size.height()).context("no room for a picture")?;
        resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixmap.as_mut());
        Ok(pixmap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::scale::{Axis, Unit};
    use crate::chart::{HEIGHT, Line, WIDTH};

    fn chart(title: &str) -> Chart {
        Chart {
            name: "a".to_owned(),
            title: title.to_owned(),
            unit: Unit::Percent,
            x: Axis::Seconds { high: 1.0 },
            is_log: false,
            lines: vec![Line {
                name: "a".to_owned(),
                points: vec![(0.0, Some(50.0)), (1.0, Some(70.0))],
            }],
            shaded: Vec::new(),
        }
    }

    fn count(pixmap: &Pixmap, is_one: impl Fn(u8, u8, u8) -> bool) -> usize {
        let pixels = pixmap.pixels().iter();
        pixels.filter(|pixel| is_one(pixel.red(), pixel.green(), pixel.blue())).count()
    }

    #[test]
    fn a_picture_has_the_line_and_the_letters_of_its_chart() {
        let painter = Painter::default();
        let pixmap = painter.pixels(&chart("Title")).unwrap();
        assert_eq!((pixmap.width(), pixmap.height()), (WIDTH as u32 * 2, HEIGHT as u32 * 2));
        let line = count(&pixmap, |red, green, blue| (red, green, blue) == (0x1f, 0x6f, 0xeb));
        assert!(line > 1000, "{line} pixels of the line");
        let is_ink = |red, green, blue| (red, green, blue) == (0x1f, 0x23, 0x28);
        let (with, without) =
            (count(&pixmap, is_ink), count(&painter.pixels(&chart("")).unwrap(), is_ink));
        assert!(with > without + 50, "{with} and {without} pixels of ink");
        assert!(painter.png(&chart("Title")).unwrap().starts_with(b"\x89PNG"));
    }
}

use super::*;

fn chart(points: Vec<(f64, Option<f64>)>) -> Chart {
    Chart {
        name: "rate".to_owned(),
        title: "a < b & \"c\"".to_owned(),
        unit: Unit::PerSecond,
        x: Axis::Seconds { high: 10.0 },
        is_log: false,
        lines: vec![Line { name: "<sent>".to_owned(), points }],
        shaded: vec![(0.0, 2.0)],
    }
}

/// The path of the first line itself; the legend's mark has a `d` of its own.
fn path(svg: &str) -> &str {
    let at = svg.find("fill=\"none\"").unwrap();
    let d = &svg[at + svg[at..].find(" d=\"").unwrap() + 4..];
    &d[..d.find('"').unwrap()]
}

#[test]
fn a_line_breaks_at_gaps_and_a_lone_point_is_a_dot() {
    let points = vec![(0.0, Some(0.0)), (2.0, Some(100.0)), (4.0, None), (10.0, Some(50.0))];
    let svg = chart(points).svg();
    assert_eq!(path(&svg), "M68.0 240.0h0L227.2 52.0M864.0 146.0h0");
}

#[test]
fn what_is_written_cannot_be_markup() {
    let svg = chart(vec![(1.0, Some(1.0))]).svg();
    assert!(svg.contains("&lt;sent&gt;") && !svg.contains("<sent>"), "{svg}");
    assert!(svg.contains("aria-label=\"a &lt; b &amp; &quot;c&quot;\""), "{svg}");
}

#[test]
fn every_character_of_markup_is_escaped_and_what_xml_cannot_hold_is_replaced() {
    assert_eq!(escape("a<b>&\"'\u{1}\n"), "a&lt;b&gt;&amp;&quot;&#39;\u{fffd}\n");
}

#[test]
fn no_value_leaves_the_drawing_nor_breaks_it() {
    for value in [0.0, 1e-12, 1e300] {
        for is_log in [false, true] {
            let chart = Chart { is_log, ..chart(vec![(0.0, Some(1.0)), (20.0, Some(value))]) };
            let svg = chart.svg();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{value}: {svg}");
            assert!(path(&svg).contains("L864.0 "), "{value}: {svg}");
        }
    }
    let empty = chart(vec![(0.0, None)]);
    assert!(empty.is_empty() && empty.svg().contains("d=\"\""));
}

#[test]
fn a_hint_says_all_values_of_its_place() {
    let svg = chart(vec![(1.0, Some(1500.0)), (2.0, None)]).svg();
    assert!(svg.contains("<title>1 s: &lt;sent&gt; 1.5k/s</title>"), "{svg}");
    assert_eq!(svg.matches("<title>").count(), 1);
}

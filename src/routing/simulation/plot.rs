//! A run of the simulation as a picture.

use std::fmt::Write as _;

use super::world::{FLAPPING, Log, MODELS, OUTAGE, SECONDS};

const LEFT: u64 = 64;
const WIDTH: u64 = 900;
const HEIGHT: u64 = 200;

/// Where the upper and the lower half begin.
const SHARES: u64 = 70;
const WEIGHTS: u64 = 340;

/// Colours that also people tell apart who see fewer.
const COLOURS: [&str; 3] = ["#0072b2", "#d55e00", "#009e73"];

/// Compares the picture in the repository with this run, or writes it.
pub(super) fn check(log: &Log) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/weights.svg");
    let picture = draw(log);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&file, &picture).unwrap();
    }
    let same = std::fs::read_to_string(&file).unwrap_or_default() == picture;
    assert!(
        same,
        "docs/weights.svg is out of date: UPDATE_GENERATED=1 cargo nextest run weights_settle, then commit it"
    );
}

fn draw(log: &Log) -> String {
    let mut svg = String::new();
    let total = SECONDS as u64;
    let x = |second: u64| LEFT + second * WIDTH / total;
    let _ = writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 600" font-family="sans-serif" font-size="13" fill="#222">
<title>Shares of requests and effective weights of three models in the simulation</title>
<rect width="1000" height="600" fill="#fcfcfa"/>
<text x="{LEFT}" y="28" font-size="16">Three models, twenty isolates, 200 requests a second, dynamic weights</text>"##
    );
    for (nth, model) in MODELS.iter().enumerate() {
        let at = 700 + nth as u64 * 95;
        let _ = writeln!(
            svg,
            r##"<line x1="{at}" y1="24" x2="{}" y2="24" stroke="{}" stroke-width="2"/><text x="{}" y="28">{}</text>"##,
            at + 24,
            COLOURS[nth],
            at + 30,
            model.name
        );
    }
    for (span, what) in [(OUTAGE, "fast is down"), (FLAPPING, "slow flaps")] {
        let (from, to) = (x(span.0), x(span.1));
        for top in [SHARES, WEIGHTS] {
            // What it is stands above the frame, where no line crosses it.
            let _ = writeln!(
                svg,
                r##"<rect x="{from}" y="{top}" width="{}" height="{HEIGHT}" fill="#e8e4dc"/><text x="{}" y="{}" text-anchor="middle">{what}</text>"##,
                to - from,
                from.midpoint(to),
                top - 6
            );
        }
    }
    axes(&mut svg, SHARES, "share of requests, %");
    axes(&mut svg, WEIGHTS, "effective weight, %");
    for (nth, colour) in COLOURS.iter().enumerate() {
        let shares = (0..SECONDS - 1).step_by(2).map(|second| {
            let share = super::share(log, nth, second, second + 2);
            (x(second as u64 + 1), SHARES + HEIGHT - share * HEIGHT / 1_000)
        });
        line(&mut svg, colour, shares);
        let weights = log.weights.iter().enumerate();
        let weights = weights.map(|(second, all)| (x(second as u64), WEIGHTS + HEIGHT - all[nth] * HEIGHT / 1_000));
        line(&mut svg, colour, weights);
    }
    let _ = writeln!(svg, r##"<text x="{}" y="588" text-anchor="middle">seconds</text>"##, LEFT + WIDTH / 2);
    svg.push_str("</svg>\n");
    svg
}

/// A frame from 0 to 100 %, with its scales.
fn axes(svg: &mut String, top: u64, what: &str) {
    for part in (0..=10).step_by(2) {
        let y = top + HEIGHT - part * HEIGHT / 10;
        let _ = writeln!(
            svg,
            r##"<line x1="{LEFT}" y1="{y}" x2="{}" y2="{y}" stroke="#d0ccc4"/><text x="{}" y="{}" text-anchor="end">{}</text>"##,
            LEFT + WIDTH,
            LEFT - 6,
            y + 4,
            part * 10
        );
    }
    for second in (0..=SECONDS as u64).step_by(30) {
        let at = LEFT + second * WIDTH / SECONDS as u64;
        let y = top + HEIGHT + 18;
        let _ = writeln!(svg, r##"<text x="{at}" y="{y}" text-anchor="middle">{second}</text>"##);
    }
    let middle = top + HEIGHT / 2;
    let _ =
        writeln!(svg, r##"<text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">{what}</text>"##);
}

fn line(svg: &mut String, colour: &str, points: impl Iterator<Item = (u64, u64)>) {
    let points: Vec<String> = points.map(|(x, y)| format!("{x},{y}")).collect();
    let points = points.join(" ");
    let _ = writeln!(svg, r##"<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>"##);
}

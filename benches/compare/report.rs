//! Turns, medians, ratios, and the tables they are printed in.

use crate::wrk::Load;
use crate::{Options, Outcome};

/// One turn.
type Measure<'a> = Box<dyn FnMut(&Options) -> Outcome<Load> + 'a>;

/// One side of a comparison.
pub struct Side<'a> {
    name: String,
    measure: Measure<'a>,
    loads: Vec<Load>,
}

impl<'a> Side<'a> {
    /// A side whose every turn is a call of `measure`.
    pub fn new(name: impl Into<String>, measure: impl FnMut(&Options) -> Outcome<Load> + 'a) -> Side<'a> {
        Side { name: name.into(), measure: Box::new(measure), loads: Vec::new() }
    }
}

/// Gives each side a short turn to warm up and then its turns, one after the other, and prints the table.
pub fn take_turns(options: &Options, heading: &str, sides: &mut [Side<'_>]) -> Outcome<()> {
    let warm_up = Options { seconds: 2, ..options.clone() };
    for side in &mut *sides {
        (side.measure)(&warm_up)?;
    }
    for _ in 0..options.rounds {
        for side in &mut *sides {
            side.loads.push((side.measure)(options)?);
        }
    }
    println!("\n{heading}, {} rounds of {} s", options.rounds, options.seconds);
    println!(
        "{:<34} {:>9} {:>19} {:>8} {:>8} {:>8} {:>8} {:>11} {:>9} {:>6}",
        "", "req/s", "(least – most)", "p50 ms", "p99 ms", "p99.9", "max ms", "server us", "elsewhere", "errors"
    );
    for side in &*sides {
        let Summary { rate, least, most, .. } = side.summary();
        let median_of = |field: fn(&Load) -> f64| median(side.loads.iter().map(field).collect());
        let p999 = side.loads.iter().filter_map(|load| load.p999_ms).collect::<Vec<_>>();
        println!(
            "{:<34} {:>9.0} {:>19} {:>8.2} {:>8.2} {:>8} {:>8.1} {:>11.1} {:>8.0}% {:>6}",
            side.name,
            rate,
            format!("({least:.0} – {most:.0})"),
            median_of(|load| load.p50_ms),
            median_of(|load| load.p99_ms),
            if p999.is_empty() { "–".to_string() } else { format!("{:.2}", median(p999)) },
            side.loads.iter().map(|load| load.max_ms).fold(0.0, f64::max),
            median_of(|load| load.server_us),
            median_of(|load| load.usage.elsewhere) * 100.0,
            side.loads.iter().map(|load| load.errors).sum::<u64>(),
        );
    }
    Ok(())
}

struct Summary {
    rate: f64,
    least: f64,
    most: f64,
}

impl Side<'_> {
    fn summary(&self) -> Summary {
        let rates: Vec<f64> = self.loads.iter().map(|load| load.per_second).collect();
        let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rates.iter().copied().fold(0.0, f64::max);
        Summary { rate: median(rates), least, most }
    }

    /// The longest that any request of any turn took.
    pub fn longest_ms(&self) -> f64 {
        self.loads.iter().map(|load| load.max_ms).fold(0.0, f64::max)
    }
}

/// Which way a ratio should lie.
#[derive(Clone, Copy)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// Prints what one side has of another, turn by turn: the median of the ratios, least and most.
pub fn ratio(what: &str, a: &Side<'_>, b: &Side<'_>, field: fn(&Load) -> f64, target: Target) {
    judge(what, ratios(a, b, field), target);
}

/// The same for two sides that are only there to be compared with.
pub fn ratio_of_peer(what: &str, a: &Side<'_>, b: &Side<'_>, field: fn(&Load) -> f64) {
    println!("{what}: {}", spread(ratios(a, b, field)).1);
}

/// Prints the median of some ratios, least and most, and whether it lies where it should.
pub fn judge(what: &str, ratios: Vec<f64>, target: Target) {
    let (middle, words) = spread(ratios);
    println!("{what}: {words}, {}", judged(middle, target));
}

/// What one side has of another, turn by turn.
pub fn ratios(a: &Side<'_>, b: &Side<'_>, field: fn(&Load) -> f64) -> Vec<f64> {
    a.loads.iter().zip(&b.loads).map(|(a, b)| field(a) / field(b)).collect()
}

/// The median of some ratios; and in words, with the least and the most.
pub fn spread(ratios: Vec<f64>) -> (f64, String) {
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    let middle = median(ratios);
    (middle, format!("{middle:.2} ({least:.2} – {most:.2})"))
}

/// The target, and whether it is met.
pub fn judged(value: f64, target: Target) -> String {
    let (met, words) = match target {
        Target::AtLeast(bound) => (value >= bound, format!("at least {bound:.2}")),
        Target::AtMost(bound) => (value <= bound, format!("at most {bound:.2}")),
    };
    format!("wanted {words}: {}", if met { "met" } else { "MISSED" })
}

/// The middle one; the mean of the two middle ones.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => 0.0,
        count if count % 2 == 1 => numbers[count / 2],
        count => (numbers[count / 2 - 1] + numbers[count / 2]) / 2.0,
    }
}

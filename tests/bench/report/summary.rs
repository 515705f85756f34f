//! Compares programs: the median of the rounds of each, and its ratio to the last program.

use super::Row;

/// A figure of a row, with its heading.
type Figure = (&'static str, fn(&Row) -> f64);

const FIGURES: [Figure; 4] = [
    ("CPU µs", |row| row.cpu_us),
    ("deliveries/s", |row| row.deliveries_per_second),
    ("p50 ms", |row| row.p50_ms),
    ("p99 ms", |row| row.p99_ms),
];

/// Prints a line for each program and load, if there are several programs or rounds.
pub fn print(rows: &[Row]) {
    let mut groups: Vec<Vec<&Row>> = Vec::new();
    for row in rows {
        match groups.iter_mut().find(|group| is_same(group[0], row)) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    if groups.len() == rows.len() && rows.iter().all(|row| row.program == rows[0].program) {
        return;
    }
    println!("\nmedians of the rounds, in brackets relative to the program that was measured last");
    for group in &groups {
        let first = group[0];
        let mut others = groups
            .iter()
            .filter(|other| (other[0].scenario, other[0].load) == (first.scenario, first.load));
        let reference = others.next_back().unwrap_or(group);
        print!(
            "{:8} {:12} {:10}",
            first.program, first.scenario, first.load
        );
        for (heading, figure) in FIGURES {
            let value = median(group, figure);
            let ratio = value / median(reference, figure);
            print!("  {heading} {value:.2} ({ratio:.2})");
        }
        println!();
    }
}

fn is_same(one: &Row, other: &Row) -> bool {
    (one.program, one.scenario, one.load) == (other.program, other.scenario, other.load)
}

fn median(rows: &[&Row], figure: fn(&Row) -> f64) -> f64 {
    let mut values: Vec<f64> = rows.iter().map(|row| figure(row)).collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

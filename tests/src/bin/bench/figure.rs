//! What was measured: figures beside what they must be compared with, as a table for people and as JSON.

use serde_json::{Value, json};

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// This much or less, in the figure's unit.
    AtMost(f64),
    /// This share of the figure beside it, or more.
    ShareAtLeast(f64),
    /// This share of the figure beside it, or less.
    ShareAtMost(f64),
}

/// One measured value.
#[derive(Clone, Debug)]
pub struct Figure {
    section: &'static str,
    name: String,
    value: f64,
    unit: &'static str,
    beside: Option<(String, f64)>,
    goal: Option<Goal>,
}

impl Figure {
    /// A value alone.
    pub fn new(
        section: &'static str,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
    ) -> Self {
        Figure {
            section,
            name: name.into(),
            value,
            unit,
            beside: None,
            goal: None,
        }
    }

    /// With the raw figure of the same run, in the same unit.
    pub fn beside(mut self, what: impl Into<String>, value: f64) -> Self {
        self.beside = Some((what.into(), value));
        self
    }

    /// With its goal.
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    fn ratio(&self) -> Option<f64> {
        let (_, beside) = self.beside.as_ref()?;
        (*beside > 0.0).then(|| self.value / beside)
    }

    /// Whether the goal is met; nothing where there is none.
    pub fn met(&self) -> Option<bool> {
        Some(match self.goal? {
            Goal::AtMost(limit) => self.value <= limit,
            Goal::ShareAtLeast(share) => self.ratio().is_some_and(|ratio| ratio >= share),
            Goal::ShareAtMost(share) => self.ratio().is_some_and(|ratio| ratio <= share),
        })
    }

    fn goal_text(&self) -> String {
        let verdict = match self.met() {
            None => return String::new(),
            Some(true) => "met",
            Some(false) => "NOT MET",
        };
        match self.goal {
            Some(Goal::AtMost(limit)) => format!("<= {} {}: {verdict}", number(limit), self.unit),
            Some(Goal::ShareAtLeast(share)) => format!(">= {:.0} %: {verdict}", share * 100.0),
            Some(Goal::ShareAtMost(share)) => format!("<= {:.0} %: {verdict}", share * 100.0),
            None => String::new(),
        }
    }

    fn cells(&self) -> [String; 5] {
        let beside = self
            .beside
            .as_ref()
            .map_or_else(String::new, |(what, value)| {
                format!("{} {} ({what})", number(*value), self.unit)
            });
        [
            self.name.clone(),
            format!("{} {}", number(self.value), self.unit),
            beside,
            self.ratio()
                .map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            self.goal_text(),
        ]
    }

    fn json(&self) -> Value {
        let goal = self.goal.map(|goal| match goal {
            Goal::AtMost(limit) => json!({"at_most": limit}),
            Goal::ShareAtLeast(share) => json!({"share_at_least": share}),
            Goal::ShareAtMost(share) => json!({"share_at_most": share}),
        });
        json!({
            "section": self.section,
            "name": self.name,
            "value": rounded(self.value),
            "unit": self.unit,
            "beside": self.beside.as_ref().map(|(what, value)| json!({"what": what, "value": rounded(*value)})),
            "ratio": self.ratio().map(rounded),
            "goal": goal,
            "met": self.met(),
        })
    }
}

/// All figures as one JSON object.
pub fn as_json(machine: &str, figures: &[Figure]) -> Value {
    json!({"machine": machine, "figures": figures.iter().map(Figure::json).collect::<Vec<_>>()})
}

/// All figures as text, a block for each section.
pub fn as_table(figures: &[Figure]) -> String {
    let head = ["", "measured", "beside it", "ratio", "goal"].map(str::to_owned);
    let rows: Vec<[String; 5]> = figures.iter().map(Figure::cells).collect();
    let mut widths = head.each_ref().map(String::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut section = "";
    for (figure, row) in figures.iter().zip(&rows) {
        if figure.section != section {
            section = figure.section;
            text.push_str(&format!("\n{section}\n"));
            push_row(&mut text, &head, &widths);
        }
        push_row(&mut text, row, &widths);
    }
    text
}

fn push_row(text: &mut String, cells: &[String; 5], widths: &[usize; 5]) {
    let [name, numbers @ ..] = cells;
    let mut line = format!("  {name:<0$}", widths[0]);
    for (cell, width) in numbers.iter().zip(&widths[1..]) {
        line.push_str(&format!("  {cell:<width$}"));
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// Three digits are what a shared machine is good for.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The middle value; the upper one of two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value below which this share of all lies. `values` are sorted.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a length is an index below it"
    )]
    let at = (sorted.len() as f64 * share) as usize;
    sorted
        .get(at.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_judged_by_value_or_by_share() {
        let figure = |value| Figure::new("s", "n", value, "ms");
        assert_eq!(figure(1.0).met(), None);
        assert_eq!(figure(100.0).goal(Goal::AtMost(100.0)).met(), Some(true));
        assert_eq!(figure(100.1).goal(Goal::AtMost(100.0)).met(), Some(false));
        let share = |value| {
            figure(value)
                .beside("raw", 10.0)
                .goal(Goal::ShareAtLeast(0.8))
        };
        assert_eq!(share(8.0).met(), Some(true));
        assert_eq!(share(7.9).met(), Some(false));
        let without = figure(8.0).goal(Goal::ShareAtLeast(0.8));
        assert_eq!(without.met(), Some(false));
        let most = |value| {
            figure(value)
                .beside("raw", 10.0)
                .goal(Goal::ShareAtMost(1.0))
        };
        assert_eq!(most(10.0).met(), Some(true));
        assert_eq!(most(10.1).met(), Some(false));
        let without = figure(8.0).goal(Goal::ShareAtMost(1.0));
        assert_eq!(without.met(), Some(false));
    }

    #[test]
    fn medians_and_quantiles() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert!(median(Vec::new()).is_nan());
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), 50.0);
        assert_eq!(quantile(&values, 0.99), 99.0);
        assert_eq!(quantile(&values, 1.0), 99.0);
    }
}

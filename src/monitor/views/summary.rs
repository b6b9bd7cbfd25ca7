//! The cluster in sums and curves: how much is done, where, for whom, and why not elsewhere.

use std::cmp::Reverse;
use std::time::Duration;

use ratatui::style::Style;
use ratatui::text::Span;

use super::{Page, curve, meter, tail};
use crate::monitor::history::Second;
use crate::monitor::text;

/// Cells before a curve.
const LABEL: u16 = 15;
/// Cells behind it.
const VALUE: u16 = 8;

/// Draws it.
pub(super) fn draw(page: &mut Page<'_>) {
    let top = sums(page);
    let rows = match page.area.height {
        tall if tall >= 34 => 4,
        middle if middle >= 24 => 2,
        _ => 1,
    };
    let theme = page.theme;
    let mut y = top + 1;
    let curve = |name, style, of| Curve { name, style, of };
    let curves = [
        curve("remote jobs/s", theme.remote(), |s| s.remote.into()),
        curve("local jobs/s", theme.local(), |s| s.local.into()),
        curve("slots in use", theme.remote(), |s| s.busy.into()),
        curve("waiting", theme.waiting(), |s| s.waiting.into()),
        curve("failures/s", theme.bad(), |s| s.failed.into()),
    ];
    for curve in curves {
        line(page, y, rows, &curve);
        y += rows + u16::from(rows > 1);
    }
    let left = page.area.width / 2;
    shares(page, y + u16::from(rows == 1), left);
    reasons(page, y + u16::from(rows == 1), left);
}

/// The figures, and the first line below them.
fn sums(page: &mut Page<'_>) -> u16 {
    let model = page.model;
    let theme = page.theme;
    let totals = model.totals();
    let asked: u64 = model.reasons().values().sum();
    let local = totals.own + asked;
    let all = totals.remote + local;
    let cpu = text::duration(Duration::from_micros(totals.remote_cpu_us));
    let figures = [
        [
            ("jobs", text::count(all), theme.strong()),
            ("remote", share(totals.remote, all), theme.remote()),
            ("local", share(local, all), theme.local()),
            (
                "failed",
                text::count(totals.failed),
                match totals.failed {
                    0 => theme.dim(),
                    _ => theme.bad(),
                },
            ),
        ],
        [
            ("cpu saved", cpu, theme.strong()),
            ("output", text::bytes(totals.output_bytes), Style::new()),
            ("nodes", model.nodes().len().to_string(), Style::new()),
            ("version", model.version().to_owned(), theme.dim()),
        ],
    ];
    let width = page.area.width / 4;
    for (y, row) in (0..).zip(figures) {
        for (column, (name, value, style)) in (0..).zip(row) {
            let spans = vec![
                Span::styled(format!(" {name:<10}"), theme.dim()),
                Span::styled(value, style),
            ];
            page.put(column * width, y, spans);
        }
    }
    2
}

fn share(part: u64, whole: u64) -> String {
    format!("{} {}", text::count(part), text::percent(part, whole))
}

/// What happened in each of the last seconds.
struct Curve {
    name: &'static str,
    style: Style,
    of: fn(&Second) -> u64,
}

fn line(page: &mut Page<'_>, y: u16, rows: u16, line: &Curve) {
    let theme = page.theme;
    let width = page.area.width.saturating_sub(LABEL + VALUE + 1);
    let values = page.model.history().last(width.into(), line.of);
    let top = values.iter().copied().max().unwrap_or(0);
    let last = values.last().copied().unwrap_or(0);
    page.put(
        0,
        y + rows - 1,
        vec![Span::styled(format!(" {}", line.name), theme.dim())],
    );
    for (row, span) in (y..).zip(curve(theme, &values, rows, line.style)) {
        page.put(LABEL, row, vec![span]);
    }
    let strong = theme.strong();
    let of_most = Span::styled(
        format!("{:>VALUE$}", text::count(last), VALUE = VALUE as usize),
        strong,
    );
    page.put_right(y + rows - 1, vec![of_most]);
    if rows > 1 {
        let most = format!("max {}", text::count(top));
        page.put_right(y, vec![Span::styled(most, theme.dim())]);
    }
}

/// Whose jobs take how much of the others' processors.
fn shares(page: &mut Page<'_>, y: u16, width: u16) {
    let theme = page.theme;
    let mut users: Vec<_> = page
        .model
        .nodes()
        .values()
        .filter(|row| row.done_out + u64::from(row.away) > 0)
        .map(|row| (row.cpu_out_us, row.done_out, row.picture.node))
        .collect();
    users.sort_by_key(|&(cpu, done, node)| (Reverse(cpu), Reverse(done), node));
    let all = users.iter().map(|(cpu, ..)| cpu).sum::<u64>();
    page.title(1, y, "WHO USES THE OTHERS");
    let longest = users
        .iter()
        .map(|(.., node)| page.model.name(*node).chars().count())
        .max();
    let name_width = longest
        .unwrap_or(0)
        .min(usize::from(width / 3).clamp(8, 20));
    let bar = width.saturating_sub(name_width as u16 + 15);
    for (y, (cpu, done, node)) in (y + 1..).zip(users) {
        let name = tail(page.model.name(node), name_width, theme);
        let mut spans = vec![Span::raw(format!(" {name:<name_width$} "))];
        spans.extend(meter(
            theme,
            bar,
            cpu as f64,
            all as f64,
            theme.owner(node.0),
        ));
        let figures = format!(" {:>4} {:>5}", text::percent(cpu, all), text::count(done));
        spans.push(Span::styled(figures, theme.dim()));
        page.put(0, y, spans);
    }
}

/// Why jobs were local.
fn reasons(page: &mut Page<'_>, y: u16, left: u16) {
    let theme = page.theme;
    let model = page.model;
    let own = ("own node".into(), model.totals().own);
    let reasons = model.reasons().iter();
    let mut reasons: Vec<(std::rc::Rc<str>, u64)> = reasons
        .map(|(reason, count)| (reason.clone(), *count))
        .chain([own])
        .filter(|(_, count)| *count > 0)
        .collect();
    reasons.sort_by_key(|(reason, count)| (Reverse(*count), reason.clone()));
    let all = reasons.iter().map(|(_, count)| count).sum::<u64>();
    page.title(left + 1, y, "WHY JOBS WERE LOCAL");
    let width = page.area.width - left;
    let longest = reasons
        .iter()
        .map(|(reason, _)| reason.chars().count())
        .max();
    let name_width = longest
        .unwrap_or(0)
        .min(usize::from(width / 2).clamp(12, 26));
    let bar = width.saturating_sub(name_width as u16 + 15);
    for (y, (reason, count)) in (y + 1..).zip(reasons) {
        let name = tail(&reason, name_width, theme);
        let mut spans = vec![Span::raw(format!(" {name:<name_width$} "))];
        spans.extend(meter(theme, bar, count as f64, all as f64, theme.local()));
        let figures = format!(
            " {:>4} {:>5}",
            text::percent(count, all),
            text::count(count)
        );
        spans.push(Span::styled(figures, theme.dim()));
        page.put(left, y, spans);
    }
}

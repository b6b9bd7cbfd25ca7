//! Who compiles for whom: each submitter, and below it the workers that its jobs went to.

use std::collections::BTreeMap;
use std::time::Duration;

use ratatui::style::Style;
use ratatui::text::Span;

use super::{Page, meter, tail};
use crate::id::NodeId;
use crate::monitor::model::Pair;
use crate::monitor::text;
use crate::monitor::ui::{RowKey, Ui};

/// Cells for a name.
const NAME: usize = 18;

/// Draws it.
pub(super) fn draw(page: &mut Page<'_>, ui: &mut Ui) {
    let model = page.model;
    let mut by_submitter: BTreeMap<NodeId, (Pair, Vec<(NodeId, Pair)>)> = BTreeMap::new();
    for (&(submitter, worker), pair) in model.pairs() {
        let names = || [model.name(submitter), model.name(worker)];
        if !ui.filter.is_empty() && !ui.passes(&names()) {
            continue;
        }
        let (sum, workers) = by_submitter.entry(submitter).or_default();
        sum.running += pair.running;
        sum.done += pair.done;
        sum.cpu_us = sum.cpu_us.saturating_add(pair.cpu_us);
        workers.push((worker, *pair));
    }
    let weight = |pair: &Pair| std::cmp::Reverse((pair.running, pair.cpu_us, pair.done));
    let mut groups: Vec<_> = by_submitter.into_iter().collect();
    groups.sort_by_key(|(submitter, (sum, _))| (weight(sum), *submitter));
    let all = groups.iter().map(|(_, (sum, _))| sum.cpu_us).sum::<u64>();

    let mut lines = Vec::new();
    for (submitter, (sum, workers)) in &mut groups {
        workers.sort_by_key(|(worker, pair)| (weight(pair), *worker));
        lines.push((RowKey::Node(*submitter), *sum, all));
        let rows = workers.iter();
        lines.extend(
            rows.map(|(worker, pair)| (RowKey::Pair(*submitter, *worker), *pair, sum.cpu_us)),
        );
    }
    let order: Vec<RowKey> = lines.iter().map(|(key, ..)| *key).collect();
    let height = usize::from(page.area.height) - 1;
    let offset = ui.scroll(&order, height);
    let width = page.area.width;
    let bar = width.saturating_sub(70).clamp(4, 60);
    let head = format!(
        " {:<NAME$}   {:<NAME$} {:>5} {:>6} {:>7} {:>5}",
        "FROM", "TO", "RUN", "DONE", "CPU", "SHARE"
    );
    page.title(0, 0, &head);
    for (y, (key, pair, whole)) in (1..).zip(lines.iter().skip(offset).take(height)) {
        let spans = line(page, *key, pair, *whole, bar);
        page.put(0, y, spans);
        page.row(y, *key, ui.selected() == Some(*key));
    }
    if lines.is_empty() {
        page.nothing("nobody compiles for anybody yet");
    }
    page.hits.order = order;
    page.hits.page = height;
}

fn line(page: &Page<'_>, key: RowKey, pair: &Pair, whole: u64, bar: u16) -> Vec<Span<'static>> {
    let theme = page.theme;
    let (submitter, is_sum) = match key {
        RowKey::Pair(submitter, _) => (submitter, false),
        RowKey::Node(node) => (node, true),
        RowKey::Slot(..) | RowKey::Job(_) | RowKey::Told(_) => return Vec::new(),
    };
    let owner = theme.owner(submitter.0);
    let name = |node| tail(page.model.name(node), NAME, theme);
    let mut spans = match key {
        RowKey::Pair(_, worker) => vec![
            Span::raw(" ".repeat(NAME - 2)),
            Span::styled(theme.glyph("  ╰─▸ ", "   -> "), owner),
            Span::raw(format!("{:<NAME$}", name(worker))),
        ],
        _ => vec![
            Span::raw(" "),
            Span::styled(
                format!("{:<NAME$}", name(submitter)),
                owner.patch(theme.strong()),
            ),
            Span::styled(format!("   {:<NAME$}", "all"), theme.dim()),
        ],
    };
    let running = match pair.running {
        0 => Span::styled(format!(" {:>5}", theme.glyph("·", "-")), theme.dim()),
        running => Span::styled(format!(" {running:>5}"), theme.remote()),
    };
    let cpu = text::duration(Duration::from_micros(pair.cpu_us));
    spans.push(running);
    spans.push(Span::raw(format!(" {:>6}", text::count(pair.done))));
    spans.push(Span::raw(format!(" {cpu:>7}")));
    spans.push(Span::raw(format!(
        " {:>5} ",
        text::percent(pair.cpu_us, whole)
    )));
    let style = if is_sum {
        owner
    } else {
        Style::new().patch(owner)
    };
    let share = if whole == 0 {
        0.0
    } else {
        pair.cpu_us as f64 / whole as f64
    };
    spans.extend(meter(theme, bar, share, 1.0, style));
    spans
}

//! Slots over time: a row for each slot, a block for each job, now at the right edge.
//!
//! Blocks have their submitter's colour and, where there is room, the name of their file. The columns
//! are aligned to whole cells of time, so that a picture moves by cells and does not tremble.

use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use super::{Page, list, put, tail};
use crate::id::{NodeId, Time};
use crate::monitor::job::{Live, Past, word};
use crate::monitor::node::NodeRow;
use crate::monitor::text;
use crate::monitor::ui::{RowKey, Ui};
use crate::news::Ending;

/// Cells for the names of nodes and slots.
const LABEL: u16 = 16;
/// A block that is this wide has a name in it.
const NAMED: u16 = 5;

/// Draws it.
pub(super) fn draw(page: &mut Page<'_>, ui: &mut Ui) {
    let model = page.model;
    let nodes = list::order(model, ui);
    let mut order = Vec::new();
    for row in &nodes {
        let lanes = row.lanes.len().max(row.picture.slots as usize);
        let node = row.picture.node;
        order.extend((0..lanes).map(|lane| RowKey::Slot(node, lane as u16)));
    }
    let height = usize::from(page.area.height.saturating_sub(3));
    let offset = ui.scroll(&order, height);
    let timeline = Rect {
        x: page.area.x + LABEL,
        y: page.area.y + 1,
        width: page.area.width - LABEL,
        height: height as u16,
    };
    let cell_us = ui.cell_time().as_micros() as u64;
    let scale = Scale {
        cell_us,
        right: (model.now().0 / cell_us + 1) * cell_us,
        width: timeline.width,
    };
    ruler(page, &scale, ui);
    for (y, &key) in (1..).zip(order.iter().skip(offset).take(height)) {
        let RowKey::Slot(node, lane) = key else {
            continue;
        };
        let Some(row) = model.nodes().get(&node) else {
            continue;
        };
        let is_selected = ui.selected() == Some(key);
        label(page, row, lane, y, y == 1, is_selected);
        slot(page, row, lane, y, &scale);
        let area = Rect {
            y: page.area.y + y,
            height: 1,
            ..page.area
        };
        page.hits.rows.push((area, key));
        if let Some(cell) = ui.cell
            && is_selected
            && let Some(pointed) = page
                .buf
                .cell_mut((timeline.x + cell.min(timeline.width - 1), area.y))
        {
            pointed.set_symbol(page.theme.glyph("┃", "|"));
            pointed.set_style(Style::reset().patch(page.theme.strong()));
        }
    }
    if order.is_empty() {
        page.nothing("no slots");
    }
    said(page, ui, &scale);
    page.hits.order = order;
    page.hits.page = height;
    page.hits.timeline = timeline;
}

/// From times to cells.
struct Scale {
    cell_us: u64,
    /// The end of the last cell.
    right: u64,
    width: u16,
}

impl Scale {
    fn left(&self) -> u64 {
        self.right
            .saturating_sub(u64::from(self.width) * self.cell_us)
    }

    /// The cell that a time lies in; those before the first lie in it.
    fn cell(&self, time: Time) -> u16 {
        // Early in the monitor's life, the left edge lies before its clock's zero.
        let from_right = self.right.saturating_sub(time.0).div_ceil(self.cell_us);
        u64::from(self.width)
            .saturating_sub(from_right)
            .min(u64::from(self.width) - 1) as u16
    }

    /// The time at the end of a cell.
    fn end_of(&self, cell: u16) -> Time {
        let from_right = u64::from(self.width.saturating_sub(cell + 1)) * self.cell_us;
        Time(self.right.saturating_sub(from_right))
    }

    /// The cells of something that lasted so long, if any are visible.
    fn span(&self, from: Time, to: Time) -> Option<(u16, u16)> {
        (to.0 > self.left()).then(|| (self.cell(from), self.cell(to)))
    }
}

fn ruler(page: &mut Page<'_>, scale: &Scale, ui: &Ui) {
    let theme = page.theme;
    let every = 20;
    let mut cells = 0;
    while cells + every < scale.width {
        let ago = std::time::Duration::from_micros(u64::from(cells) * scale.cell_us);
        let mark = match cells {
            0 => format!("now{}", theme.glyph("╷", "|")),
            _ => format!("-{}{}", text::duration(ago), theme.glyph("╷", "|")),
        };
        let x = LABEL + scale.width - cells - mark.chars().count() as u16;
        page.title(x, 0, &mark);
        cells += every;
    }
    let cell = text::duration(ui.cell_time());
    page.title(1, 0, &format!("{cell}/cell"));
}

fn label(page: &mut Page<'_>, row: &NodeRow, lane: u16, y: u16, is_top: bool, is_selected: bool) {
    let theme = page.theme;
    let name = match lane == 0 || is_top {
        true => tail(&row.picture.name, usize::from(LABEL) - 6, theme),
        false => String::new(),
    };
    let width = usize::from(LABEL) - 6;
    let style = match is_selected {
        true => theme.selected(),
        false => Style::new(),
    };
    let spans = vec![
        Span::raw(" "),
        Span::styled(format!("{name:<width$}"), style.patch(theme.strong())),
        Span::styled(format!("{:>3} ", lane + 1), style.patch(theme.dim())),
    ];
    page.put(0, y, spans);
}

fn slot(page: &mut Page<'_>, row: &NodeRow, lane: u16, y: u16, scale: &Scale) {
    let ground = page.theme.glyph("·", ".").repeat(scale.width.into());
    page.title(LABEL, y, &ground);
    for past in row.past.iter().filter(|past| past.job.lane == lane) {
        if let Some((from, to)) = scale.span(past.job.since, past.end) {
            let style = match past.is_failure() {
                true => page.theme.bad(),
                false => page.theme.owner(past.job.submitter.0),
            };
            block(page, y, (from, to), style, &past.job, past.is_own());
        }
    }
    let number = row.lanes.get(usize::from(lane)).copied().flatten();
    if let Some(job) = number.and_then(|number| page.model.jobs().get(&number)) {
        let from = scale.cell(job.since);
        let style = page.theme.owner(job.submitter.0);
        let is_own = job.worker == Some(job.submitter);
        block(page, y, (from, scale.width), style, job, is_own);
    }
}

/// A block from one cell up to another, with the name of its file.
fn block(
    page: &mut Page<'_>,
    y: u16,
    (from, to): (u16, u16),
    style: Style,
    job: &Live,
    is_own: bool,
) {
    let theme = page.theme;
    let (x, y) = (page.area.x + LABEL + from, page.area.y + y);
    let width = to.saturating_sub(from);
    if width == 0 {
        // Shorter than a cell.
        let glyph = theme.glyph("▌", "!");
        put(page.buf, x, y, 1, vec![Span::styled(glyph, style)]);
        return;
    }
    let name = job.file.rsplit('/').next().unwrap_or_default();
    // A block ends before its last cell's end, so that two in a row can be told apart.
    let inner = usize::from(width) - 1;
    let mut text = match width >= NAMED {
        true => name.chars().take(inner).collect(),
        false => String::new(),
    };
    let filler = match (is_own, theme.has_unicode) {
        (true, true) => '░',
        (true, false) => '+',
        (false, true) => ' ',
        (false, false) => '#',
    };
    let missing = inner.saturating_sub(text.chars().count());
    text.extend(std::iter::repeat_n(filler, missing));
    let inside = match (is_own, theme.has_unicode) {
        (false, true) => style.add_modifier(Modifier::REVERSED),
        _ => style,
    };
    let spans = vec![
        Span::styled(text, inside),
        Span::styled(theme.glyph("▌", "|"), style),
    ];
    put(page.buf, x, y, width, spans);
}

/// The line below: what is pointed at.
fn said(page: &mut Page<'_>, ui: &Ui, scale: &Scale) {
    let Some(RowKey::Slot(node, lane)) = ui.selected() else {
        return;
    };
    let Some(row) = page.model.nodes().get(&node) else {
        return;
    };
    let last = scale.width - 1;
    let cell = ui.cell.unwrap_or(last).min(last);
    let running = row.lanes.get(usize::from(lane)).copied().flatten();
    let running = running.and_then(|number| page.model.jobs().get(&number));
    let running = running.filter(|job| scale.cell(job.since) <= cell);
    let past = || {
        let mut past = row.past.iter().rev();
        past.find(|past| {
            past.job.lane == lane
                && scale
                    .span(past.job.since, past.end)
                    .is_some_and(|(from, to)| from <= cell && cell <= to)
        })
    };
    let y = page.area.height - 1;
    let mut spans = vec![
        Span::raw(" "),
        Span::styled(row.picture.name.clone(), page.theme.strong()),
        Span::styled(format!(" slot {}  ", lane + 1), page.theme.dim()),
    ];
    match (running, past()) {
        (Some(job), _) => {
            spans.extend(facts(page, job));
            let age = page.model.now().since(job.since);
            spans.push(Span::raw(format!("  runs for {}", text::duration(age))));
        }
        (None, Some(past)) => {
            spans.extend(facts(page, &past.job));
            spans.push(Span::raw(format!("  {}", ended(past))));
        }
        (None, None) => {
            let ago = page.model.now().since(scale.end_of(cell));
            let free = format!("free {} ago", text::duration(ago));
            spans.push(Span::styled(free, page.theme.dim()));
        }
    }
    page.put(0, y, spans);
}

fn facts(page: &Page<'_>, job: &Live) -> Vec<Span<'static>> {
    let name: NodeId = job.submitter;
    vec![
        Span::raw(tail(&job.file, 40, page.theme)),
        Span::styled("  from ", page.theme.dim()),
        Span::styled(page.model.name(name).to_owned(), page.theme.owner(name.0)),
    ]
}

fn ended(past: &Past) -> String {
    let lasted = text::duration(past.lasted());
    match &past.ending {
        Ending::Done {
            usage,
            output_bytes,
        } => {
            let cpu = text::duration(std::time::Duration::from_micros(usage.cpu_us));
            format!("{lasted}, cpu {cpu}, output {}", text::bytes(*output_bytes))
        }
        ending => format!("{lasted}, {}", word(ending).0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_cells_belong_together() {
        let scale = Scale {
            cell_us: 100,
            right: 1000,
            width: 8,
        };
        for (time, cell) in [
            (0, 0),
            (200, 0),
            (299, 0),
            (300, 1),
            (899, 6),
            (900, 7),
            (1000, 7),
        ] {
            assert_eq!(scale.cell(Time(time)), cell, "{time}");
        }
        for cell in 0..8 {
            assert_eq!(scale.cell(Time(scale.end_of(cell).0 - 1)), cell);
        }
        assert_eq!(scale.span(Time(0), Time(200)), None);
        assert_eq!(scale.span(Time(0), Time(350)), Some((0, 1)));
    }
}

//! The nodes around the scheduler. A few have names and rays along which jobs flow; of many, each is
//! a dot on one of the rings, fuller the busier it is.

use std::f64::consts::{FRAC_PI_2, TAU};

use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;

use super::{Page, list, put, slots, tail};
use crate::monitor::model::Model;
use crate::monitor::node::NodeRow;
use crate::monitor::text;
use crate::monitor::ui::{RowKey, Ui};

/// Cells for a node with its name.
const LABEL: u16 = 14;
/// Cells between two dots on a ring.
const SPACING: f64 = 2.6;
/// How far the marks on a ray move in a second, in cells.
const FLOW: f64 = 8.0;

/// Draws it.
pub(super) fn draw(page: &mut Page<'_>, ui: &mut Ui) {
    let rows = list::order(page.model, ui);
    let order: Vec<RowKey> = rows
        .iter()
        .map(|row| RowKey::Node(row.picture.node))
        .collect();
    let sky = Rect {
        height: page.area.height - 1,
        ..page.area
    };
    if rows.is_empty() {
        page.nothing("no nodes");
    } else if rows.len() <= usize::from(sky.height) * 2 - 6 && sky.width >= 4 * LABEL {
        named(page, ui, &rows, sky);
    } else {
        dots(page, ui, &rows, sky);
    }
    said(page, ui);
    page.hits.order = order;
    page.hits.page = 1;
}

/// Each node with its name at the end of a ray.
fn named(page: &mut Page<'_>, ui: &Ui, rows: &[&NodeRow], sky: Rect) {
    let center = (
        f64::from(sky.x) + f64::from(sky.width) / 2.0,
        f64::from(sky.y) + f64::from(sky.height) / 2.0,
    );
    let radius = (
        f64::from(sky.width) / 2.0 - f64::from(LABEL) / 2.0 - 1.0,
        f64::from(sky.height) / 2.0 - 1.0,
    );
    let count = rows.len();
    // Two nodes whose labels would touch stand at different distances.
    let is_crowded = count > 8;
    let ends: Vec<(f64, f64)> = (0..count)
        .map(|index| {
            let angle = index as f64 * TAU / count as f64 - FRAC_PI_2;
            let near = if is_crowded && index % 2 == 1 {
                0.66
            } else {
                1.0
            };
            (
                center.0 + angle.cos() * radius.0 * near,
                center.1 + angle.sin() * radius.1 * near,
            )
        })
        .collect();
    for (row, &end) in rows.iter().zip(&ends) {
        ray(page, row, center, end);
    }
    scheduler(page, center);
    for (row, &(x, y)) in rows.iter().zip(&ends) {
        let key = RowKey::Node(row.picture.node);
        let left = (x - f64::from(LABEL) / 2.0).round().max(0.0) as u16;
        let left = left.clamp(sky.x, (sky.x + sky.width).saturating_sub(LABEL));
        let top = (y.round() as u16).clamp(sky.y, sky.y + sky.height - 2);
        star(page, row, left, top, ui.selected() == Some(key));
        page.hits.rows.push((Rect::new(left, top, LABEL, 2), key));
    }
}

/// A name, and slots below it.
fn star(page: &mut Page<'_>, row: &NodeRow, left: u16, top: u16, is_selected: bool) {
    let theme = page.theme;
    let width = usize::from(LABEL);
    let name = tail(&row.picture.name, width, theme);
    let mut style = match row.takes_jobs() {
        true => theme.strong(),
        false => theme.dim(),
    };
    if row.away > 0 {
        style = style.patch(theme.owner(row.picture.node.0));
    }
    if is_selected {
        style = style.add_modifier(Modifier::REVERSED);
    }
    put(
        page.buf,
        left,
        top,
        LABEL,
        vec![Span::raw(" ".repeat(width))],
    );
    put(
        page.buf,
        left,
        top + 1,
        LABEL,
        vec![Span::raw(" ".repeat(width))],
    );
    let shift = (width - name.chars().count()) as u16 / 2;
    put(
        page.buf,
        left + shift,
        top,
        LABEL,
        vec![Span::styled(name, style)],
    );
    let cells = row.picture.slots.max(row.busy()).min(u32::from(LABEL)) as u16;
    let bar = slots(theme, cells, row.guests, row.local(), row.picture.slots);
    put(page.buf, left + (LABEL - cells) / 2, top + 1, LABEL, bar);
}

/// A line of marks from the center to a node: still when it is idle, and flowing outwards in the colours
/// of those whose jobs run there, denser the busier it is.
fn ray(page: &mut Page<'_>, row: &NodeRow, from: (f64, f64), to: (f64, f64)) {
    let theme = page.theme;
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let steps = dx.abs().max(dy.abs() * 2.0).max(1.0);
    let owners = owners(page.model, row);
    let is_busy = !owners.is_empty();
    let gap = match is_busy {
        true => (6 - owners.len().min(4)) as i64,
        false => 4,
    };
    let moved = match is_busy {
        true => (page.model.now().0 as f64 / 1e6 * FLOW) as i64,
        false => 0,
    };
    for step in 2..steps as i64 {
        let place = step - moved;
        let share = step as f64 / steps;
        let (x, y) = (from.0 + dx * share, from.1 + dy * share);
        let (glyph, style) = match (place.rem_euclid(gap) == 0, is_busy) {
            (true, true) => {
                let mark = place.div_euclid(gap).rem_euclid(owners.len() as i64);
                (theme.glyph("•", "o"), theme.owner(owners[mark as usize]))
            }
            (true, false) => (theme.glyph("·", "."), theme.dim()),
            (false, _) => continue,
        };
        put(
            page.buf,
            x.round() as u16,
            y.round() as u16,
            1,
            vec![Span::styled(glyph, style)],
        );
    }
}

/// Whose jobs run on a node, by the numbers of nodes; a few of them.
fn owners(model: &Model, row: &NodeRow) -> Vec<u32> {
    let jobs = row.lanes.iter().flatten();
    let jobs = jobs.filter_map(|number| model.jobs().get(number));
    let others = jobs.filter(|job| job.submitter != row.picture.node);
    others.map(|job| job.submitter.0).take(8).collect()
}

fn scheduler(page: &mut Page<'_>, center: (f64, f64)) {
    let theme = page.theme;
    let text = format!(" {} scheduler ", theme.glyph("◆", "*"));
    let width = text.chars().count() as u16;
    let left = (center.0 - f64::from(width) / 2.0).round() as u16;
    let top = center.1.round() as u16;
    put(
        page.buf,
        left,
        top,
        width,
        vec![Span::styled(text, theme.accent())],
    );
    let waiting = page.model.waiting();
    if waiting > 0 {
        let text = format!("{} waiting", text::count(waiting.into()));
        let left = (center.0 - text.len() as f64 / 2.0).round() as u16;
        let width = text.len() as u16;
        put(
            page.buf,
            left,
            top + 1,
            width,
            vec![Span::styled(text, theme.waiting())],
        );
    }
}

/// Rings of dots, the first nodes innermost.
fn dots(page: &mut Page<'_>, ui: &Ui, rows: &[&NodeRow], sky: Rect) {
    let center = (
        f64::from(sky.x) + f64::from(sky.width) / 2.0 - 0.5,
        f64::from(sky.y) + f64::from(sky.height) / 2.0 - 0.5,
    );
    scheduler(page, center);
    let theme = page.theme;
    let largest = (
        f64::from(sky.height) / 2.0 - 0.5,
        f64::from(sky.width) / 2.0 - 1.0,
    );
    let mut rest = rows.iter();
    let mut left = rows.len();
    for ring in 2.. {
        let (b, a) = (f64::from(ring), f64::from(ring) * largest.1 / largest.0);
        if b > largest.0 || left == 0 {
            break;
        }
        // Ramanujan's approximation of an ellipse's circumference; a cell is twice as high as wide.
        let (b2, h) = (2.0 * b, (a - 2.0 * b) / (a + 2.0 * b));
        let circumference = std::f64::consts::PI
            * (a + b2)
            * (1.0 + 3.0 * h * h / (10.0 + (4.0 - 3.0 * h * h).sqrt()));
        let room = ((circumference / SPACING) as usize).max(1).min(left);
        for (index, row) in rest.by_ref().take(room).enumerate() {
            let angle = index as f64 * TAU / room as f64 - FRAC_PI_2;
            let x = (center.0 + angle.cos() * a).round() as u16;
            let y = (center.1 + angle.sin() * b).round() as u16;
            let key = RowKey::Node(row.picture.node);
            let (glyph, mut style) = dot(page, row);
            if ui.selected() == Some(key) {
                style = style.patch(theme.selected());
            }
            put(page.buf, x, y, 1, vec![Span::styled(glyph, style)]);
            page.hits.rows.push((Rect::new(x, y, 1, 1), key));
        }
        left -= room;
    }
    if left > 0 {
        let more = format!("and {} more", text::count(left as u64));
        page.put_right(0, vec![Span::styled(more, theme.dim())]);
    }
}

fn dot(page: &Page<'_>, row: &NodeRow) -> (&'static str, Style) {
    let theme = page.theme;
    let steps = match theme.has_unicode {
        true => ["·", "○", "◔", "◑", "◕", "●"],
        false => [".", "o", "o", "O", "O", "@"],
    };
    if !row.takes_jobs() {
        return (theme.glyph("×", "x"), theme.dim());
    }
    let slots = row.picture.slots.max(1);
    match row.busy().min(slots) {
        0 => (steps[0], theme.dim()),
        busy => {
            let step = 1 + (busy * 4).div_ceil(slots) as usize;
            let style = match row.guests {
                0 => theme.local(),
                _ => theme.remote(),
            };
            (steps[step.min(5)], style)
        }
    }
}

/// The line below: the selected node.
fn said(page: &mut Page<'_>, ui: &Ui) {
    let Some(RowKey::Node(node)) = ui.selected() else {
        return;
    };
    let Some(row) = page.model.nodes().get(&node) else {
        return;
    };
    let (kind, _) = list::kind(row);
    let facts = format!(
        "  {kind}  {}/{} slots, {} jobs for others, {} by others, {} here",
        row.busy(),
        row.picture.slots,
        text::count(row.picture.jobs_done.max(row.done_in)),
        text::count(row.done_out),
        text::count(row.done_here),
    );
    let spans = vec![
        Span::raw(" "),
        Span::styled(row.picture.name.clone(), page.theme.strong()),
        Span::styled(facts, page.theme.dim()),
    ];
    page.put(0, page.area.height - 1, spans);
}

//! The nodes as a table, and the same table as plain text.

use std::cmp::{Ordering, Reverse};

use ratatui::layout::Rect;
use ratatui::text::Span;

use super::table::{Spec, fit};
use super::{Page, slots};
use crate::monitor::model::Model;
use crate::monitor::node::NodeRow;
use crate::monitor::text;
use crate::monitor::theme::Theme;
use crate::monitor::ui::{Column, RowKey, Ui};

/// Cells for a name, at most.
const NAME_MAX: usize = 32;
/// Cells for a platform at the least, if there is need for them.
const KIND_MAX: usize = 14;

/// Draws it.
pub(super) fn draw(page: &mut Page<'_>, ui: &mut Ui) {
    let rows = order(page.model, ui);
    let mut specs = Column::ALL.map(spec);
    // Names get what they need, and bars the rest.
    let longest = rows
        .iter()
        .map(|row| row.picture.name.chars().count())
        .max();
    specs[0].width = longest.unwrap_or(0).clamp(8, NAME_MAX) as u16;
    let longest = rows.iter().map(|row| kind(row).0.chars().count()).max();
    specs[Column::ALL.len() - 1].width = longest.unwrap_or(0).clamp(8, KIND_MAX) as u16;
    let places = fit(&specs, page.area.width);
    for &place in &places {
        let column = Column::ALL[place.index];
        let mark = match (column == ui.sort, ui.is_reversed) {
            (false, _) => "",
            (true, false) => page.theme.glyph("▾", "v"),
            (true, true) => page.theme.glyph("▴", "^"),
        };
        let style = match column == ui.sort {
            true => page.theme.accent(),
            false => page.theme.dim(),
        };
        let spec = &specs[place.index];
        let title = match spec.is_right {
            true => format!("{mark}{}", spec.title),
            false => format!("{}{mark}", spec.title),
        };
        page.cell(place, spec, 0, vec![Span::styled(title, style)]);
        let area = Rect::new(page.area.x + place.x, page.area.y, place.width, 1);
        page.hits.heads.push((area, column));
    }
    let order: Vec<RowKey> = rows
        .iter()
        .map(|row| RowKey::Node(row.picture.node))
        .collect();
    let height = usize::from(page.area.height) - 1;
    let offset = ui.scroll(&order, height);
    let visible = rows.iter().zip(&order).skip(offset).take(height);
    for (y, (row, &key)) in (1..).zip(visible) {
        for &place in &places {
            let column = Column::ALL[place.index];
            let cell = cell(row, column, place.width, page.theme);
            page.cell(place, &specs[place.index], y, cell);
        }
        page.row(y, key, ui.selected() == Some(key));
    }
    if rows.is_empty() {
        page.nothing(match page.model.nodes().is_empty() {
            true => "no node is connected: start `ice daemon` on the machines that compile",
            false => "no node passes the filter",
        });
    }
    page.hits.order = order;
    page.hits.page = height;
}

/// The whole table without a screen: lines that end with a newline, columns as wide as they need.
pub fn plain(model: &Model, theme: Theme) -> String {
    let ui = Ui::default();
    let mut table = vec![Column::ALL.map(|column| spec(column).title.to_owned())];
    for row in order(model, &ui) {
        let text = |column| match column {
            Column::Slots => format!("{}/{}", row.busy(), row.picture.slots),
            _ => {
                let spans = cell(row, column, 0, theme);
                spans.iter().map(|span| &*span.content).collect()
            }
        };
        table.push(Column::ALL.map(text));
    }
    let widths = std::array::from_fn::<usize, { Column::ALL.len() }, _>(|column| {
        let cells = table.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    });
    let mut lines = format!(
        "{}: {}, {}/{} slots in use, {} waiting\n",
        model.netname(),
        text::plural(model.nodes().len() as u64, "node"),
        model.busy(),
        model.slots(),
        model.waiting()
    );
    for row in table {
        let mut line = String::new();
        for ((cell, column), width) in row.iter().zip(Column::ALL).zip(widths) {
            match spec(column).is_right || column == Column::Slots {
                true => line.push_str(&format!("{cell:>width$}  ")),
                false => line.push_str(&format!("{cell:<width$}  ")),
            }
        }
        lines.push_str(line.trim_end());
        lines.push('\n');
    }
    lines
}

/// The nodes that pass the filter, in the order that was asked for; names decide between equals.
pub(super) fn order<'a>(model: &'a Model, ui: &Ui) -> Vec<&'a NodeRow> {
    let passes = |row: &&NodeRow| {
        let picture = &row.picture;
        ui.passes(&[&picture.name, &picture.platform, &picture.address])
    };
    let mut rows: Vec<&NodeRow> = model.nodes().values().filter(passes).collect();
    rows.sort_by(|a, b| {
        let order = compare(a, b, ui.sort);
        let order = if ui.is_reversed {
            order.reverse()
        } else {
            order
        };
        order.then_with(|| a.picture.name.cmp(&b.picture.name))
    });
    rows
}

/// Words ascend, numbers descend: what is looked for is at the top.
fn compare(a: &NodeRow, b: &NodeRow, by: Column) -> Ordering {
    let number = |of: fn(&NodeRow) -> u64| Reverse(of(a)).cmp(&Reverse(of(b)));
    match by {
        Column::Name => a.picture.name.cmp(&b.picture.name),
        Column::Platform => kind(a).cmp(&kind(b)),
        Column::Slots => number(|row| u64::from(row.busy()) << 32 | u64::from(row.picture.slots)),
        Column::In => number(came_in),
        Column::Out => number(|row| row.done_out),
        Column::Here => number(|row| row.done_here),
        Column::Failed => number(|row| row.failures),
        Column::Speed => number(|row| row.picture.speed_percent.into()),
        Column::Load => number(|row| row.picture.load_milli.into()),
        Column::Memory => number(|row| row.picture.memory_mib),
    }
}

fn spec(column: Column) -> Spec {
    let (title, width, rank, grows) = match column {
        Column::Name => ("NAME", 8, 0, 0),
        Column::Slots => ("SLOTS", 16, 1, 30),
        Column::In => ("IN", 5, 2, 0),
        Column::Out => ("OUT", 5, 2, 0),
        Column::Here => ("HERE", 5, 4, 0),
        Column::Failed => ("FAIL", 5, 3, 0),
        Column::Speed => ("SPEED", 6, 5, 0),
        Column::Load => ("LOAD", 6, 6, 0),
        Column::Memory => ("FREE", 6, 9, 0),
        Column::Platform => ("PLATFORM", 8, 8, 40),
    };
    Spec {
        title,
        width,
        is_right: !matches!(column, Column::Name | Column::Slots | Column::Platform),
        rank,
        grows,
    }
}

fn cell(row: &NodeRow, column: Column, width: u16, theme: Theme) -> Vec<Span<'static>> {
    let picture = &row.picture;
    let number = |value: u64, style| match value {
        0 => vec![Span::styled(theme.glyph("·", "-"), theme.dim())],
        _ => vec![Span::styled(text::count(value), style)],
    };
    let plain = ratatui::style::Style::new();
    match column {
        Column::Name => {
            let style = match row.takes_jobs() {
                true => theme.strong(),
                false => theme.dim(),
            };
            vec![Span::styled(picture.name.clone(), style)]
        }
        Column::Slots => {
            let figure = format!("{:>7} ", format!("{}/{}", row.busy(), picture.slots));
            let mut spans = vec![Span::raw(figure)];
            let bar = width.saturating_sub(8);
            spans.extend(slots(theme, bar, row.guests, row.local(), picture.slots));
            spans
        }
        Column::In => number(came_in(row), theme.remote()),
        Column::Out => number(row.done_out, plain),
        Column::Here => number(row.done_here, theme.local()),
        Column::Failed => number(row.failures, theme.bad()),
        Column::Speed => match picture.speed_percent {
            0 => vec![Span::styled(theme.glyph("·", "-"), theme.dim())],
            percent => vec![Span::raw(format!("{percent}%"))],
        },
        Column::Load => {
            let load = f64::from(picture.load_milli) / 1000.0;
            let text = match load {
                small if small < 99.95 => format!("{small:.1}"),
                large => format!("{large:.0}"),
            };
            let is_high = load > 1.5 * f64::from(picture.slots.max(1));
            vec![Span::styled(
                text,
                if is_high { theme.waiting() } else { plain },
            )]
        }
        Column::Memory => vec![Span::raw(text::bytes(picture.memory_mib << 20))],
        Column::Platform => {
            let (text, is_trouble) = kind(row);
            let style = if is_trouble {
                theme.waiting()
            } else {
                theme.dim()
            };
            vec![Span::styled(text, style)]
        }
    }
}

/// Jobs that it compiled for others, since it came to the cluster or since the monitor knows it.
fn came_in(row: &NodeRow) -> u64 {
    row.picture.jobs_done.max(row.done_in)
}

/// Its machine, or what keeps it from compiling for others, and whether something does.
pub(super) fn kind(row: &NodeRow) -> (String, bool) {
    let picture = &row.picture;
    match &picture.no_remote {
        _ if picture.is_blocked => ("blocked".to_owned(), true),
        _ if picture.slots == 0 => ("submits only".to_owned(), false),
        Some(why) => (format!("no: {why}"), true),
        None if !row.takes_jobs() => ("submits only".to_owned(), false),
        None => (picture.platform.clone(), false),
    }
}

//! The screens: a model and what is looked at, drawn into cells.
//!
//! Drawing is pure and costs nothing for rows that are not visible, but for their order. Each view
//! says in [`Hits`] where its rows are, for keys and mouse.

mod detail;
mod flow;
mod frame;
mod gantt;
mod help;
mod jobs;
pub mod list;
mod star;
mod summary;
mod table;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::monitor::model::Model;
use crate::monitor::theme::Theme;
use crate::monitor::ui::{Hits, Ui, View};

/// The smallest screen that a view fits on; below it there is a sentence.
pub const SMALLEST: (u16, u16) = (60, 12);

/// Draws the whole screen.
pub fn draw(model: &Model, ui: &mut Ui, theme: Theme, area: Rect, buf: &mut Buffer) {
    ui.look(model, |ui, model| {
        let (width, height) = SMALLEST;
        if area.width < width || area.height < height {
            let text = format!("ice monitor needs {width}x{height}");
            put(buf, area.x, area.y, area.width, vec![Span::raw(text)]);
            return;
        }
        let mut hits = Hits::default();
        frame::head(model, ui, theme, area, buf, &mut hits);
        let inner = Rect {
            y: area.y + 3,
            height: area.height - 4,
            ..area
        };
        let mut page = Page {
            model,
            theme,
            area: inner,
            buf,
            hits: &mut hits,
        };
        match (ui.detail, ui.view) {
            (Some(node), _) => detail::draw(&mut page, ui, node),
            (None, View::List) => list::draw(&mut page, ui),
            (None, View::Star) => star::draw(&mut page, ui),
            (None, View::Gantt) => gantt::draw(&mut page, ui),
            (None, View::Summary) => summary::draw(&mut page),
            (None, View::Flow) => flow::draw(&mut page, ui),
            (None, View::Jobs) => jobs::draw(&mut page, ui),
        }
        frame::foot(model, ui, theme, area, buf);
        if ui.is_help {
            help::draw(theme, inner, buf);
        }
        ui.hits = hits;
    });
}

/// What a view draws with and on.
struct Page<'a> {
    model: &'a Model,
    theme: Theme,
    area: Rect,
    buf: &'a mut Buffer,
    hits: &'a mut Hits,
}

impl Page<'_> {
    /// Puts spans on a line of the page; beyond its end they are cut.
    fn put(&mut self, x: u16, y: u16, spans: Vec<Span<'_>>) {
        if y < self.area.height && x < self.area.width {
            let (left, top) = (self.area.x + x, self.area.y + y);
            put(self.buf, left, top, self.area.width - x, spans);
        }
    }

    /// Puts spans at the end of a line.
    fn put_right(&mut self, y: u16, spans: Vec<Span<'_>>) {
        let width: usize = spans.iter().map(Span::width).sum();
        let x = usize::from(self.area.width).saturating_sub(width + 1);
        self.put(x as u16, y, spans);
    }

    /// A head above something.
    fn title(&mut self, x: u16, y: u16, text: &str) {
        self.put(x, y, vec![Span::styled(text.to_owned(), self.theme.dim())]);
    }

    /// A sentence where there is nothing to show.
    fn nothing(&mut self, text: &str) {
        let x = usize::from(self.area.width).saturating_sub(text.chars().count()) / 2;
        let y = self.area.height / 2;
        self.put(
            x as u16,
            y,
            vec![Span::styled(text.to_owned(), self.theme.dim())],
        );
    }
}

fn put(buf: &mut Buffer, x: u16, y: u16, width: u16, spans: Vec<Span<'_>>) {
    buf.set_line(x, y, &Line::from(spans), width);
}

/// A bar of `width` cells, of which `value` of `whole` are filled, as finely as glyphs allow.
fn meter(theme: Theme, width: u16, value: f64, whole: f64, style: Style) -> Vec<Span<'static>> {
    let steps = theme.widths();
    let per_cell = steps.len() - 1;
    let share = if whole > 0.0 { value / whole } else { 0.0 };
    let total = usize::from(width) * per_cell;
    let mut filled = (share.clamp(0.0, 1.0) * total as f64).round() as usize;
    if value > 0.0 {
        // Something is never nothing.
        filled = filled.max(1);
    }
    let (full, rest) = (filled / per_cell, filled % per_cell);
    let mut bar = steps[per_cell].repeat(full);
    if rest > 0 {
        bar.push_str(steps[rest]);
    }
    let empty = usize::from(width).saturating_sub(full + usize::from(rest > 0));
    let ground = theme.glyph("·", ".").repeat(empty);
    vec![Span::styled(bar, style), Span::styled(ground, theme.dim())]
}

/// The slots of a node: those of others, own ones, free ones; scaled when there are more than cells.
fn slots(theme: Theme, width: u16, guests: u32, own: u32, slots: u32) -> Vec<Span<'static>> {
    let [guest, mine, free] = theme.slots();
    let width = u32::from(width);
    let (mut guests, mut own, mut all) = (guests, own, slots.max(guests.saturating_add(own)));
    if all > width {
        let scale = |part: u32| {
            let cells = u64::from(part) * u64::from(width);
            (cells.div_ceil(u64::from(all)) as u32).min(width)
        };
        (guests, own) = (scale(guests), scale(own));
        own = own.min(width - guests);
        all = width;
    }
    let idle = all - guests - own;
    vec![
        Span::styled(guest.repeat(guests as usize), theme.remote()),
        Span::styled(mine.repeat(own as usize), theme.local()),
        Span::styled(free.repeat(idle as usize), theme.dim()),
        Span::raw(" ".repeat((width - all) as usize)),
    ]
}

/// A curve over time, one cell a value, as high as the largest of all.
fn curve(theme: Theme, values: &[u64], rows: u16, style: Style) -> Vec<Span<'static>> {
    let heights = theme.heights();
    let per_cell = (heights.len() - 1) as u64;
    let top = values.iter().copied().max().unwrap_or(0).max(1);
    let levels = per_cell * u64::from(rows);
    let level = |value: u64| match value {
        0 => 0,
        _ => ((value * levels + top / 2) / top).max(1),
    };
    (0..rows)
        .rev()
        .map(|row| {
            let below = u64::from(row) * per_cell;
            let cells = values.iter().map(|&value| {
                let height = level(value).saturating_sub(below).min(per_cell);
                heights[height as usize]
            });
            Span::styled(cells.collect::<String>(), style)
        })
        .collect()
}

/// The end of a name that is too long: what tells files apart is there.
fn tail(text: &str, width: usize, theme: Theme) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_owned();
    }
    let dots = theme.glyph("…", "~");
    let skip = count - width.saturating_sub(1);
    std::iter::once(dots)
        .chain(std::iter::once(
            &text[text
                .char_indices()
                .nth(skip)
                .map_or(text.len(), |(at, _)| at)..],
        ))
        .collect()
}

//! The help: keys, and what colours and glyphs mean.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;

use super::put;
use crate::monitor::theme::Theme;

const KEYS: [(&str, &str); 14] = [
    ("1 to 6, Tab", "views; the tabs can be clicked"),
    (
        "up down k j",
        "select; also page up and down, g, G, mouse wheel",
    ),
    ("Enter, click", "detail of the selected node"),
    (
        "left right",
        "column to sort the list by; time in the Gantt view",
    ),
    ("r", "reverse the order"),
    (
        "/",
        "show only what contains some text; Esc shows all again",
    ),
    ("b", "block the node: it gets no jobs of others; unblock it"),
    ("p, space", "hold the picture; news are still heard"),
    ("+ -", "less or more time in the Gantt view"),
    ("Esc", "back"),
    ("Ctrl-L", "draw everything anew"),
    ("Ctrl-Z", "suspend"),
    ("?", "this help"),
    ("q, Ctrl-C", "quit"),
];

/// Draws it over `area`.
pub fn draw(theme: Theme, area: Rect, buf: &mut Buffer) {
    let width = area.width.min(76);
    let height = area.height.min(KEYS.len() as u16 + 5);
    let left = area.x + (area.width - width) / 2;
    let top = area.y + (area.height - height) / 2;
    let [corner, bar, side] = match theme.has_unicode {
        true => ["╭╮╰╯", "─", "│"],
        false => ["++++", "-", "|"],
    };
    let corners: Vec<char> = corner.chars().collect();
    let inside = usize::from(width) - 2;
    for y in 0..height {
        let text = match y {
            0 => format!("{}{}{}", corners[0], bar.repeat(inside), corners[1]),
            y if y + 1 == height => format!("{}{}{}", corners[2], bar.repeat(inside), corners[3]),
            _ => format!("{side}{}{side}", " ".repeat(inside)),
        };
        // What is below must not shine through.
        buf.set_style(Rect::new(left, top + y, width, 1), Style::reset());
        put(
            buf,
            left,
            top + y,
            width,
            vec![Span::styled(text, theme.dim())],
        );
    }
    for (y, (key, what)) in (1..height - 1).zip(KEYS) {
        let spans = vec![
            Span::styled(format!(" {key:<14}"), theme.accent()),
            Span::raw(what),
        ];
        put(buf, left + 1, top + y, width - 2, spans);
    }
    let [guest, own, free] = theme.slots();
    let legend = vec![
        Span::styled(format!(" {guest}"), theme.remote()),
        Span::raw(" for others   "),
        Span::styled(own, theme.local()),
        Span::raw(" own work   "),
        Span::styled(free, theme.dim()),
        Span::raw(" free slot"),
    ];
    if height as usize > KEYS.len() + 3 {
        put(buf, left + 1, top + height - 3, width - 2, legend);
    }
}

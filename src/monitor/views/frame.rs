//! What is around every view: whose cluster, how busy it is, where the other views are, which keys
//! there are.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

use super::{meter, put};
use crate::monitor::model::{Link, Model};
use crate::monitor::text;
use crate::monitor::theme::Theme;
use crate::monitor::ui::{Hits, Ui, View};

/// Over how many seconds the rate at the top is a mean.
const RATE_SECONDS: usize = 5;

/// The three lines above a view.
pub fn head(model: &Model, ui: &Ui, theme: Theme, area: Rect, buf: &mut Buffer, hits: &mut Hits) {
    let dot = theme.glyph(" · ", " - ");
    let mut name = vec![
        Span::raw(" "),
        Span::styled("ice", theme.accent()),
        Span::raw(" "),
        Span::styled(model.netname().to_owned(), theme.strong()),
    ];
    if !model.address().is_empty() {
        name.push(Span::styled(
            format!("{dot}scheduler {}", model.address()),
            theme.dim(),
        ));
    }
    if !model.netname().is_empty() {
        let up = text::duration(model.uptime());
        name.push(Span::styled(format!("{dot}up {up}"), theme.dim()));
    }
    put(buf, area.x, area.y, area.width, name);
    let (state, style) = match (model.link(), ui.is_paused) {
        (_, true) => ("paused".to_owned(), theme.waiting()),
        (Link::Up, _) => ("live".to_owned(), theme.remote()),
        (Link::Searching(_), _) => ("searching".to_owned(), theme.waiting()),
        (Link::Lost(since, _), _) => {
            let gone = text::duration(model.now().since(*since));
            (format!("no scheduler for {gone}"), theme.bad())
        }
    };
    let pill = vec![
        Span::raw(" "),
        Span::styled(theme.glyph("●", "*"), style),
        Span::raw(" "),
        Span::styled(state, style),
        Span::raw(" "),
    ];
    right(buf, area, 0, pill);

    let (slots, busy) = (model.slots(), model.busy());
    let rate = model
        .history()
        .rate(RATE_SECONDS, |s| u64::from(s.remote) + u64::from(s.local));
    let width = (area.width / 4).clamp(10, 40);
    let mut load = vec![Span::raw(" ")];
    load.extend(meter(
        theme,
        width,
        busy.into(),
        slots.max(busy).into(),
        theme.remote(),
    ));
    let figure = |spans: &mut Vec<Span<'static>>, value: String, of: &str, style| {
        spans.push(Span::raw("  "));
        spans.push(Span::styled(value, style));
        spans.push(Span::styled(format!(" {of}"), theme.dim()));
    };
    figure(
        &mut load,
        format!("{busy}/{slots}"),
        "slots",
        theme.strong(),
    );
    figure(
        &mut load,
        text::count(model.nodes().len() as u64),
        "nodes",
        theme.strong(),
    );
    let waits = match model.waiting() {
        0 => theme.strong(),
        _ => theme.waiting(),
    };
    figure(
        &mut load,
        text::count(model.waiting().into()),
        "waiting",
        waits,
    );
    figure(&mut load, format!("{rate:.1}"), "jobs/s", theme.strong());
    put(buf, area.x, area.y + 1, area.width, load);

    let mut x = area.x + 1;
    for (number, view) in View::ALL.into_iter().enumerate() {
        let title = format!(" {} {} ", number + 1, view.title());
        let width = title.len() as u16;
        let style = match view == ui.view {
            true => theme.selected(),
            false => theme.dim(),
        };
        put(buf, x, area.y + 2, width, vec![Span::styled(title, style)]);
        hits.tabs.push((Rect::new(x, area.y + 2, width, 1), view));
        x += width + 1;
    }
    if ui.is_filtering || !ui.filter.is_empty() {
        let cursor = if ui.is_filtering {
            theme.glyph("▏", "_")
        } else {
            ""
        };
        let filter = format!("/{}{cursor} ", ui.filter);
        right(buf, area, 2, vec![Span::styled(filter, theme.accent())]);
    }
}

/// The line below a view: what has just happened, or which keys there are.
pub fn foot(model: &Model, ui: &Ui, theme: Theme, area: Rect, buf: &mut Buffer) {
    let y = area.y + area.height - 1;
    let trouble = match model.link() {
        Link::Searching(why) if !why.is_empty() => Some(why.clone()),
        Link::Lost(_, why) => Some(format!("what is shown is old: {why}")),
        _ => None,
    };
    if let Some(why) = trouble {
        let spans = vec![Span::raw(" "), Span::styled(why, theme.bad())];
        put(buf, area.x, y, area.width, spans);
        return;
    }
    let said = match (ui.said(), model.notice()) {
        ("", notice) => notice.unwrap_or_default(),
        (said, _) => said,
    };
    if !said.is_empty() {
        let spans = vec![
            Span::raw(" "),
            Span::styled(said.to_owned(), theme.accent()),
        ];
        put(buf, area.x, y, area.width, spans);
        return;
    }
    let arrows = theme.glyph("↑↓", "jk");
    let mut keys = match (ui.detail, ui.view) {
        (Some(_), _) => vec![("Esc", "back"), ("b", "block")],
        (None, View::List) => vec![
            (arrows, "select"),
            ("Enter", "detail"),
            (theme.glyph("←→", "hl"), "sort"),
            ("r", "reverse"),
            ("/", "filter"),
            ("b", "block"),
        ],
        (None, View::Gantt) => vec![
            (theme.glyph("↑↓←→", "hjkl"), "point"),
            ("+ -", "scale"),
            ("/", "filter"),
        ],
        (None, View::Summary) => vec![],
        (None, _) => vec![(arrows, "select"), ("Enter", "detail"), ("/", "filter")],
    };
    keys.extend([("p", "pause"), ("Tab", "next")]);
    let hint = |(key, what): (&'static str, &'static str)| {
        [
            Span::styled(format!(" {key}"), theme.accent()),
            Span::styled(format!(" {what} "), theme.dim()),
        ]
    };
    let width = |spans: &[Span<'_>]| spans.iter().map(Span::width).sum::<usize>();
    // What must not be missing goes to the right.
    let mut last = Vec::new();
    if model.missed() > 0 {
        let missed = format!("{} news missed ", text::count(model.missed()));
        last.push(Span::styled(missed, theme.waiting()));
    }
    last.extend(hint(("?", "help")));
    last.extend(hint(("q", "quit")));
    let mut first: Vec<Span<'_>> = Vec::new();
    for key in keys {
        let hint = hint(key);
        if width(&first) + width(&hint) + width(&last) <= usize::from(area.width) {
            first.extend(hint);
        }
    }
    put(buf, area.x, y, area.width, first);
    right(buf, area, area.height - 1, last);
}

fn right(buf: &mut Buffer, area: Rect, y: u16, spans: Vec<Span<'_>>) {
    let width: usize = spans.iter().map(Span::width).sum();
    let width = (width as u16).min(area.width);
    put(buf, area.x + area.width - width, area.y + y, width, spans);
}

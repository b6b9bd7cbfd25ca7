//! Jobs as a table: those that run, those that wait, and below them what is over, the latest first.

use ratatui::style::Style;
use ratatui::text::Span;

use super::table::{Place, Spec, fit};
use super::{Page, tail};
use crate::monitor::job::{Live, Past, Recent, Told, word};
use crate::monitor::text;
use crate::monitor::ui::{RowKey, Ui};
use crate::news::Ending;

const SPECS: [Spec; 8] = [
    column("STATE", 9, false, 0, 0),
    column("FILE", 22, false, 0, 80),
    column("FROM", 10, false, 2, 12),
    column("TO", 10, false, 1, 12),
    column("TIME", 6, true, 3, 0),
    column("CPU", 6, true, 4, 0),
    column("MEM", 6, true, 6, 0),
    column("OUT", 6, true, 5, 0),
];

const fn column(title: &'static str, width: u16, is_right: bool, rank: u8, grows: u16) -> Spec {
    Spec {
        title,
        width,
        is_right,
        rank,
        grows,
    }
}

/// A line of the table.
enum Row<'a> {
    Live(&'a Live),
    Past(&'a Past),
    Told(&'a Told),
}

impl Row<'_> {
    fn key(&self) -> RowKey {
        match self {
            Self::Live(job) => RowKey::Job(job.number),
            Self::Past(past) => RowKey::Job(past.job.number),
            Self::Told(told) => RowKey::Told(told.serial),
        }
    }
}

/// Draws it.
pub(super) fn draw(page: &mut Page<'_>, ui: &mut Ui) {
    let model = page.model;
    let passes = |row: &Row<'_>| match row {
        // Names are looked up only when somebody asks for them.
        _ if ui.filter.is_empty() => true,
        Row::Live(job) => passes(page, ui, job, ""),
        Row::Past(past) => passes(page, ui, &past.job, word(&past.ending).0),
        Row::Told(told) => ui.passes(&[
            &told.file,
            model.name(told.submitter),
            "local",
            &told.reason,
        ]),
    };
    let runs = model.jobs().values().filter(|job| job.worker.is_some());
    let waits = model.jobs().values().filter(|job| job.worker.is_none());
    let over = model.recent().iter().rev().map(|recent| match recent {
        Recent::Job(past) => Row::Past(past),
        Recent::Local(told) => Row::Told(told),
    });
    let rows: Vec<Row<'_>> = runs
        .chain(waits)
        .map(Row::Live)
        .chain(over)
        .filter(passes)
        .collect();
    let places = fit(&SPECS, page.area.width);
    for &place in &places {
        let spec = &SPECS[place.index];
        let title = Span::styled(spec.title, page.theme.dim());
        page.cell(place, spec, 0, vec![title]);
    }
    let order: Vec<RowKey> = rows.iter().map(Row::key).collect();
    let height = usize::from(page.area.height) - 1;
    let offset = ui.scroll(&order, height);
    for (y, row) in (1..).zip(rows.iter().skip(offset).take(height)) {
        for &place in &places {
            let cell = cell(page, row, place);
            page.cell(place, &SPECS[place.index], y, cell);
        }
        page.row(y, row.key(), ui.selected() == Some(row.key()));
    }
    if rows.is_empty() {
        page.nothing("no jobs");
    }
    page.hits.order = order;
    page.hits.page = height;
}

fn passes(page: &Page<'_>, ui: &Ui, job: &Live, state: &str) -> bool {
    let worker = job.worker.map_or("", |worker| page.model.name(worker));
    ui.passes(&[&job.file, page.model.name(job.submitter), worker, state])
}

fn cell(page: &Page<'_>, row: &Row<'_>, place: Place) -> Vec<Span<'static>> {
    let theme = page.theme;
    let (file, submitter) = match row {
        Row::Live(job) => (&job.file, job.submitter),
        Row::Past(past) => (&past.job.file, past.job.submitter),
        Row::Told(told) => (&told.file, told.submitter),
    };
    let (state, style) = match row {
        Row::Live(job) if job.worker.is_none() => ("waits".to_owned(), theme.waiting()),
        Row::Live(job) if job.worker == Some(job.submitter) => ("runs".to_owned(), theme.local()),
        Row::Live(_) => ("runs".to_owned(), theme.remote()),
        Row::Past(past) => match word(&past.ending) {
            (word, true) => (word.to_owned(), theme.bad()),
            (word, false) => (word.to_owned(), theme.dim()),
        },
        Row::Told(told) if told.jobs > 1 => (format!("local {}x", told.jobs), theme.local()),
        Row::Told(_) => ("local".to_owned(), theme.local()),
    };
    let usage = match row {
        Row::Past(Past {
            ending:
                Ending::Done {
                    usage,
                    output_bytes,
                },
            ..
        }) => Some((usage, *output_bytes)),
        _ => None,
    };
    let faint = match row {
        Row::Live(_) => Style::new(),
        Row::Past(_) | Row::Told(_) => theme.dim(),
    };
    let one = |text: String, style| vec![Span::styled(text, style)];
    match SPECS[place.index].title {
        "STATE" => one(state, style),
        "FILE" => one(tail(file, place.width.into(), theme), Style::new()),
        "FROM" => one(
            page.model.name(submitter).to_owned(),
            theme.owner(submitter.0),
        ),
        "TO" => match row {
            Row::Live(Live { worker, .. }) => {
                one(worker.map_or("", |w| page.model.name(w)).to_owned(), faint)
            }
            Row::Past(past) => match (&past.ending, past.job.worker) {
                (Ending::Denied(why), _) => one(why.clone(), theme.waiting()),
                (_, worker) => one(worker.map_or("", |w| page.model.name(w)).to_owned(), faint),
            },
            Row::Told(told) => one(told.reason.to_string(), theme.waiting()),
        },
        "TIME" => match row {
            Row::Live(job) => one(text::duration(page.model.now().since(job.since)), faint),
            Row::Past(past) => one(text::duration(past.lasted()), faint),
            Row::Told(_) => Vec::new(),
        },
        "CPU" => usage.map_or(Vec::new(), |(usage, _)| {
            let cpu = std::time::Duration::from_micros(usage.cpu_us);
            one(text::duration(cpu), faint)
        }),
        "MEM" => usage.map_or(Vec::new(), |(usage, _)| {
            one(text::bytes(usage.rss_kib.saturating_mul(1024)), faint)
        }),
        _ => usage.map_or(Vec::new(), |(_, bytes)| one(text::bytes(bytes), faint)),
    }
}

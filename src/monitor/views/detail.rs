//! One node: what it is, what runs on it, what it did, and why its own jobs stayed at home.

use std::time::Duration;

use ratatui::style::Style;
use ratatui::text::Span;

use super::list::kind;
use super::{Page, slots, tail};
use crate::id::NodeId;
use crate::monitor::job::word;
use crate::monitor::node::NodeRow;
use crate::monitor::text;
use crate::monitor::ui::Ui;
use crate::news::Ending;

/// Cells of the left half, at least.
const LEFT: u16 = 38;
/// And at most.
const LEFT_MAX: u16 = 56;

/// Draws it.
pub(super) fn draw(page: &mut Page<'_>, ui: &mut Ui, node: NodeId) {
    let Some(row) = page.model.nodes().get(&node) else {
        page.nothing("this node has left");
        return;
    };
    let left = (page.area.width * 2 / 5).clamp(LEFT, LEFT_MAX);
    facts(page, row, left);
    activity(page, row, left);
    // Nothing can be selected here; keys go to the view below.
    page.hits.order = ui.hits.order.clone();
    page.hits.page = ui.hits.page;
}

fn facts(page: &mut Page<'_>, row: &NodeRow, left: u16) {
    let theme = page.theme;
    let picture = &row.picture;
    let (kind, is_trouble) = kind(row);
    let title = vec![
        Span::raw(" "),
        Span::styled(picture.name.clone(), theme.strong()),
        Span::raw("  "),
        Span::styled(
            kind,
            if is_trouble {
                theme.waiting()
            } else {
                theme.dim()
            },
        ),
    ];
    page.put(0, 0, title);
    let mut bar = vec![Span::raw(" ")];
    bar.extend(slots(
        theme,
        left - 3,
        row.guests,
        row.local(),
        picture.slots,
    ));
    page.put(0, 1, bar);
    let cpu = |us| text::duration(Duration::from_micros(us));
    let speed = match picture.speed_percent {
        0 => "unknown".to_owned(),
        percent => format!("{percent}% of the mean"),
    };
    let facts = [
        ("address", picture.address.clone()),
        ("platform", picture.platform.clone()),
        ("slots", format!("{}/{} in use", row.busy(), picture.slots)),
        ("speed", speed),
        (
            "load",
            format!("{:.2}", f64::from(picture.load_milli) / 1000.0),
        ),
        ("memory free", text::bytes(picture.memory_mib << 20)),
        (
            "for others",
            format!(
                "{} jobs, {}",
                row.done_in.max(picture.jobs_done),
                cpu(row.cpu_in_us)
            ),
        ),
        (
            "by others",
            format!("{} jobs, {}", row.done_out, cpu(row.cpu_out_us)),
        ),
        ("own, here", format!("{} jobs", row.done_here)),
        (
            "away, waiting",
            format!("{} jobs, {}", row.away, row.waiting),
        ),
        ("failed", row.failures.to_string()),
    ];
    for (y, (name, value)) in (2..).zip(facts) {
        let spans = vec![
            Span::styled(format!(" {name:<14}"), theme.dim()),
            Span::raw(value),
        ];
        page.put(0, y, spans);
    }
    let mut reasons: Vec<_> = row.reasons.iter().collect();
    reasons.sort_by_key(|(reason, count)| (std::cmp::Reverse(**count), (*reason).clone()));
    if !reasons.is_empty() {
        page.title(1, 14, "WHY ITS JOBS STAY HERE");
    }
    for (y, (reason, count)) in (15..).zip(reasons) {
        let spans = vec![
            Span::styled(format!(" {:>6} ", text::count(*count)), theme.local()),
            Span::raw(reason.to_string()),
        ];
        page.put(0, y, spans);
    }
}

fn activity(page: &mut Page<'_>, row: &NodeRow, left: u16) {
    let theme = page.theme;
    let model = page.model;
    let width = usize::from(page.area.width - left);
    let name_width = (width / 4).clamp(8, 16);
    let file_width = width.saturating_sub(name_width + 19);
    let entry = |state: Span<'static>, file: &str, submitter: NodeId, time: Duration| {
        let name = tail(model.name(submitter), name_width, theme);
        vec![
            state,
            Span::raw(format!(" {:<file_width$} ", tail(file, file_width, theme))),
            Span::styled(format!("{name:<name_width$}"), theme.owner(submitter.0)),
            Span::styled(format!(" {:>6}", text::duration(time)), theme.dim()),
        ]
    };
    let running: Vec<_> = row.lanes.iter().flatten().collect();
    page.title(left, 0, &format!("RUNNING {}", running.len()));
    let height = page.area.height;
    let room = usize::from(height / 2).min(running.len().max(1));
    let mut y = 1;
    for number in running.into_iter().take(room) {
        if let Some(job) = model.jobs().get(number) {
            let style = match job.worker == Some(job.submitter) {
                true => theme.local(),
                false => theme.remote(),
            };
            let state = Span::styled(format!("{:<9}", format!("slot {}", job.lane + 1)), style);
            let age = model.now().since(job.since);
            page.put(left, y, entry(state, &job.file, job.submitter, age));
            y += 1;
        }
    }
    y += 1;
    page.title(left, y, "ENDED");
    for past in row.past.iter().rev() {
        y += 1;
        if y >= height {
            break;
        }
        let (word, is_bad) = word(&past.ending);
        let style: Style = if is_bad { theme.bad() } else { theme.dim() };
        let word = match &past.ending {
            Ending::Failed {
                failure,
                dead: false,
            } => format!("{failure:?}").to_lowercase(),
            _ => word.to_owned(),
        };
        let state = Span::styled(format!("{word:<9}"), style);
        page.put(
            left,
            y,
            entry(state, &past.job.file, past.job.submitter, past.lasted()),
        );
    }
}

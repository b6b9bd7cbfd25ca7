//! What the person in front of it looks at: view, order, filter, selection; and what keys and mouse
//! do to them.
//!
//! Knows no terminal: a key is a value. What was drawn last is remembered as [`Hits`], since keys and
//! mouse refer to what is on the screen.

use std::time::Duration;

use ratatui::crossterm::event::{
    KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::layout::{Position, Rect};

use crate::id::NodeId;
use crate::monitor::model::Model;
use crate::news::JobNumber;

/// The longest filter, in characters.
const FILTER_MAX: usize = 64;
/// Rows that a turn of the mouse's wheel moves.
const WHEEL: isize = 3;

/// A way to look at the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum View {
    /// Nodes as a table.
    List,
    /// Nodes around the scheduler.
    Star,
    /// Slots over time.
    Gantt,
    /// Sums and curves.
    Summary,
    /// Who compiles for whom.
    Flow,
    /// Jobs as a table.
    Jobs,
}

impl View {
    /// All of them, in the order of their keys from 1.
    pub const ALL: [Self; 6] = [
        Self::List,
        Self::Star,
        Self::Gantt,
        Self::Summary,
        Self::Flow,
        Self::Jobs,
    ];

    /// Its name on its tab.
    pub fn title(self) -> &'static str {
        match self {
            Self::List => "List",
            Self::Star => "Star",
            Self::Gantt => "Gantt",
            Self::Summary => "Summary",
            Self::Flow => "Flow",
            Self::Jobs => "Jobs",
        }
    }
}

/// A column of the list of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Its name.
    Name,
    /// Slots in use.
    Slots,
    /// Jobs that it compiled for others.
    In,
    /// Jobs of its own that others compiled.
    Out,
    /// Jobs of its own that ran here.
    Here,
    /// Jobs that it did not deliver.
    Failed,
    /// Learned speed.
    Speed,
    /// Load average.
    Load,
    /// Available memory.
    Memory,
    /// Its machine, or why it takes no jobs.
    Platform,
}

impl Column {
    /// All of them, from left to right.
    pub const ALL: [Self; 10] = [
        Self::Name,
        Self::Slots,
        Self::In,
        Self::Out,
        Self::Here,
        Self::Failed,
        Self::Speed,
        Self::Load,
        Self::Memory,
        Self::Platform,
    ];
}

/// What a row stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKey {
    /// A node.
    Node(NodeId),
    /// A slot of a node.
    Slot(NodeId, u16),
    /// A job.
    Job(JobNumber),
    /// Local jobs, by their serial number.
    Told(u64),
    /// A submitter and a worker.
    Pair(NodeId, NodeId),
}

impl RowKey {
    /// The node that a person means by this row: the one that works.
    fn node(self, model: &Model) -> Option<NodeId> {
        match self {
            Self::Node(node) | Self::Slot(node, _) | Self::Pair(_, node) => Some(node),
            Self::Job(job) => model
                .jobs()
                .get(&job)
                .map(|job| job.worker.unwrap_or(job.submitter)),
            Self::Told(_) => None,
        }
    }
}

/// Where on the screen is what.
#[derive(Clone, Debug, Default)]
pub struct Hits {
    /// The tabs.
    pub tabs: Vec<(Rect, View)>,
    /// The heads of the list's columns.
    pub heads: Vec<(Rect, Column)>,
    /// The rows that are visible.
    pub rows: Vec<(Rect, RowKey)>,
    /// All rows, in their order.
    pub order: Vec<RowKey>,
    /// How many rows are visible at a time.
    pub page: usize,
    /// The part of the screen whose columns are time.
    pub timeline: Rect,
}

/// What is to be done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// End.
    Quit,
    /// Stop the process until the shell continues it.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// Ask the scheduler to give this node no jobs of others, or to give it some again.
    Block {
        /// Its name.
        node: String,
        /// Whether it gets none.
        is_blocked: bool,
    },
}

/// Milliseconds that a cell of the Gantt view stands for.
const SCALES_MS: [u64; 9] = [20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000];

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Ui {
    /// The view.
    pub view: View,
    /// The node whose detail covers the view.
    pub detail: Option<NodeId>,
    /// Whether the help covers it.
    pub is_help: bool,
    /// What rows must contain; empty for all.
    pub filter: String,
    /// Whether keys go into the filter.
    pub is_filtering: bool,
    /// By which column the list is sorted.
    pub sort: Column,
    /// Whether the order is the other one than the column's usual.
    pub is_reversed: bool,
    /// The column of the timeline that is pointed at, from its left edge.
    pub cell: Option<u16>,
    /// Where things are that were drawn last.
    pub hits: Hits,
    selected: [Option<RowKey>; View::ALL.len()],
    offset: [usize; View::ALL.len()],
    scale: usize,
    /// Whether the picture stands still.
    pub is_paused: bool,
    paused: Option<Box<Model>>,
    /// What a key did that can't be seen otherwise.
    said: String,
}

impl Default for Ui {
    fn default() -> Self {
        Self {
            view: View::List,
            detail: None,
            is_help: false,
            filter: String::new(),
            is_filtering: false,
            sort: Column::Name,
            is_reversed: false,
            cell: None,
            hits: Hits::default(),
            selected: [None; View::ALL.len()],
            offset: [0; View::ALL.len()],
            scale: 4,
            is_paused: false,
            paused: None,
            said: String::new(),
        }
    }
}

impl Ui {
    /// At the start, looking at this view.
    pub fn at(view: View) -> Self {
        Self {
            view,
            ..Self::default()
        }
    }

    /// Hands the model that is shown to `look`: the present one, or the one of the moment of the
    /// pause.
    pub fn look<T>(&mut self, model: &Model, look: impl FnOnce(&mut Self, &Model) -> T) -> T {
        let paused = self.paused.take();
        let looked = look(self, paused.as_deref().unwrap_or(model));
        self.paused = paused;
        looked
    }

    /// The row that is selected in the present view.
    pub fn selected(&self) -> Option<RowKey> {
        self.selected[self.view as usize]
    }

    /// The first visible row of the present view, such that the selected one is visible among `page` of
    /// `order`.
    pub fn scroll(&mut self, order: &[RowKey], page: usize) -> usize {
        let selected = self.selected();
        let at = order.iter().position(|row| Some(*row) == selected);
        let offset = &mut self.offset[self.view as usize];
        if let Some(at) = at {
            *offset = (*offset).clamp((at + 1).saturating_sub(page.max(1)), at);
        }
        *offset = (*offset).min(order.len().saturating_sub(page));
        *offset
    }

    /// How much time a cell of the Gantt view is.
    pub fn cell_time(&self) -> Duration {
        Duration::from_millis(SCALES_MS[self.scale])
    }

    /// What the last key did, when that can't be seen otherwise.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// Whether a row that consists of these words passes the filter.
    pub fn passes(&self, words: &[&str]) -> bool {
        let filter = self.filter.to_lowercase();
        filter.is_empty()
            || words
                .iter()
                .any(|word| word.to_lowercase().contains(&filter))
    }

    /// A key was pressed.
    pub fn on_key(&mut self, key: KeyEvent, model: &Model) -> Option<Command> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        self.said.clear();
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Some(Command::Quit),
                KeyCode::Char('z') => Some(Command::Suspend),
                KeyCode::Char('l') => Some(Command::Redraw),
                _ => None,
            };
        }
        if self.is_filtering {
            self.on_filter_key(key.code);
            return None;
        }
        if self.is_help {
            self.is_help = false;
            return (key.code == KeyCode::Char('q')).then_some(Command::Quit);
        }
        match key.code {
            KeyCode::Char('q') => return Some(Command::Quit),
            KeyCode::Char('?') | KeyCode::F(1) => self.is_help = true,
            KeyCode::Char(digit @ '1'..='6') => {
                self.show(View::ALL[digit as usize - '1' as usize]);
            }
            KeyCode::Tab => self.turn(1),
            KeyCode::BackTab => self.turn(-1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-(self.hits.page as isize)),
            KeyCode::PageDown => self.step(self.hits.page as isize),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX),
            KeyCode::Left | KeyCode::Char('h') => self.sideways(-1),
            KeyCode::Right | KeyCode::Char('l') => self.sideways(1),
            KeyCode::Char('+' | '=') => self.scale = self.scale.saturating_sub(1),
            KeyCode::Char('-') => self.scale = (self.scale + 1).min(SCALES_MS.len() - 1),
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Char('/') => self.is_filtering = true,
            KeyCode::Char('p' | ' ') => self.pause(model),
            KeyCode::Enter => self.open(model),
            KeyCode::Esc | KeyCode::Backspace => self.back(),
            KeyCode::Char('b') => return self.block(model),
            _ => {}
        }
        None
    }

    /// The mouse did something.
    pub fn on_mouse(&mut self, event: MouseEvent, model: &Model) {
        let at = Position::new(event.column, event.row);
        let row = || {
            let hit = self.hits.rows.iter().find(|(area, _)| area.contains(at));
            hit.map(|(_, row)| *row)
        };
        match event.kind {
            MouseEventKind::ScrollUp => self.step(-WHEEL),
            MouseEventKind::ScrollDown => self.step(WHEEL),
            MouseEventKind::Down(MouseButton::Left) => {
                self.said.clear();
                self.is_help = false;
                if let Some((_, view)) = self.hits.tabs.iter().find(|(area, _)| area.contains(at)) {
                    self.show(*view);
                } else if let Some((_, column)) =
                    self.hits.heads.iter().find(|(area, _)| area.contains(at))
                {
                    self.sort_by(*column);
                } else if let Some(row) = row() {
                    match self.selected() == Some(row) && self.cell.is_none() {
                        true => self.open(model),
                        false => self.select(row),
                    }
                }
            }
            MouseEventKind::Moved if self.hits.timeline.contains(at) => {
                if let Some(row) = row() {
                    self.select(row);
                    self.cell = Some(at.x - self.hits.timeline.x);
                }
            }
            _ => {}
        }
    }

    fn on_filter_key(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.is_filtering = false,
            KeyCode::Esc => {
                self.is_filtering = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if self.filter.chars().count() < FILTER_MAX => self.filter.push(c),
            _ => {}
        }
    }

    fn show(&mut self, view: View) {
        self.view = view;
        self.detail = None;
        self.cell = None;
    }

    fn turn(&mut self, by: isize) {
        let views = View::ALL.len() as isize;
        let next = (self.view as isize + by).rem_euclid(views);
        self.show(View::ALL[next as usize]);
    }

    fn select(&mut self, row: RowKey) {
        self.selected[self.view as usize] = Some(row);
    }

    fn step(&mut self, by: isize) {
        let order = &self.hits.order;
        let Some(last) = order.len().checked_sub(1) else {
            return;
        };
        let selected = self.selected();
        let at = order.iter().position(|row| Some(*row) == selected);
        let next = match at {
            Some(at) => at.saturating_add_signed(by).min(last),
            None if by == isize::MAX => last,
            None => self.offset[self.view as usize].min(last),
        };
        self.select(order[next]);
    }

    fn sideways(&mut self, by: isize) {
        match self.view {
            View::Gantt => {
                let width = self.hits.timeline.width;
                let last = width.saturating_sub(1);
                let at = self.cell.unwrap_or(last);
                self.cell = Some(at.saturating_add_signed(by as i16).min(last));
                if self.selected().is_none() {
                    self.step(0);
                }
            }
            View::List => {
                // Only columns that are on the screen can be followed.
                let heads = &self.hits.heads;
                let at = heads.iter().position(|(_, column)| *column == self.sort);
                let next = match at {
                    Some(at) => at.saturating_add_signed(by).min(heads.len() - 1),
                    None => 0,
                };
                if let Some(&(_, column)) = heads.get(next)
                    && column != self.sort
                {
                    self.sort_by(column);
                }
            }
            _ => {}
        }
    }

    fn sort_by(&mut self, column: Column) {
        self.is_reversed = self.sort == column && !self.is_reversed;
        self.sort = column;
    }

    fn pause(&mut self, model: &Model) {
        self.paused = match self.paused {
            Some(_) => None,
            None => Some(Box::new(model.clone())),
        };
        self.is_paused = self.paused.is_some();
    }

    fn open(&mut self, model: &Model) {
        self.look(model, |ui, model| {
            if let Some(node) = ui.selected().and_then(|row| row.node(model)) {
                ui.detail = model.nodes().contains_key(&node).then_some(node);
            }
        });
    }

    fn back(&mut self) {
        if self.detail.take().is_some() {
            return;
        }
        if !self.filter.is_empty() {
            self.filter.clear();
            return;
        }
        self.cell = None;
        self.selected[self.view as usize] = None;
    }

    fn block(&mut self, model: &Model) -> Option<Command> {
        let selected = self.selected().and_then(|row| row.node(model));
        let row = self
            .detail
            .or(selected)
            .and_then(|node| model.nodes().get(&node));
        let Some(row) = row else {
            self.said = "select a node first".to_owned();
            return None;
        };
        let node = row.picture.name.clone();
        let is_blocked = !row.picture.is_blocked;
        let word = if is_blocked { "block" } else { "unblock" };
        self.said = format!("asked the scheduler to {word} {node}");
        Some(Command::Block { node, is_blocked })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(ui: &mut Ui, keys: &str) -> Option<Command> {
        let mut command = None;
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\x08' => KeyCode::Backspace,
                '\t' => KeyCode::Tab,
                c => KeyCode::Char(c),
            };
            command = ui.on_key(KeyEvent::from(code), &Model::default());
        }
        command
    }

    fn with_rows(count: u32, page: usize) -> Ui {
        let mut ui = Ui::default();
        ui.hits.order = (0..count).map(|n| RowKey::Node(NodeId(n))).collect();
        ui.hits.page = page;
        ui
    }

    fn selected(ui: &Ui) -> Option<u32> {
        match ui.selected() {
            Some(RowKey::Node(node)) => Some(node.0),
            _ => None,
        }
    }

    #[test]
    fn keys_move_the_selection_within_the_rows() {
        for (keys, expect) in [
            ("", None),
            ("j", Some(0)),
            ("jj", Some(1)),
            ("jjk", Some(0)),
            ("jk", Some(0)),
            ("G", Some(9)),
            ("Gj", Some(9)),
            ("Gg", Some(0)),
            ("jj\x1b", None),
        ] {
            let mut ui = with_rows(10, 4);
            press(&mut ui, keys);
            assert_eq!(selected(&ui), expect, "{keys:?}");
        }
    }

    #[test]
    fn the_selected_row_is_always_visible() {
        let mut ui = with_rows(10, 4);
        for (keys, offset) in [
            ("G", 6),
            ("g", 0),
            ("jjj", 0),
            ("j", 1),
            ("k", 1),
            ("kkk", 0),
        ] {
            press(&mut ui, keys);
            let order = ui.hits.order.clone();
            assert_eq!(ui.scroll(&order, 4), offset, "{keys:?}");
        }
    }

    #[test]
    fn a_filter_is_typed_kept_and_cleared() {
        let mut ui = Ui::default();
        assert_eq!(press(&mut ui, "/q1x\x08\n"), None);
        assert_eq!((&*ui.filter, ui.is_filtering), ("q1", false));
        assert!(ui.passes(&["a", "xQ1y"]) && !ui.passes(&["a", "b"]));
        press(&mut ui, "\x1b");
        assert!(ui.passes(&["b"]));
    }

    #[test]
    fn a_key_leads_to_each_view_and_the_tab_around() {
        let mut ui = Ui::default();
        for (key, view) in ["1", "2", "3", "4", "5", "6"].iter().zip(View::ALL) {
            press(&mut ui, key);
            assert_eq!(ui.view, view);
        }
        press(&mut ui, "\t");
        assert_eq!(ui.view, View::List);
    }

    #[test]
    fn a_pause_keeps_the_picture_and_not_the_news() {
        let mut ui = Ui::default();
        let mut model = Model::default();
        ui.on_key(KeyEvent::from(KeyCode::Char('p')), &model);
        model.on_event(
            crate::monitor::model::Event::Found("a:1".into()),
            crate::id::Time(5),
        );
        let address = |ui: &mut Ui, model: &Model| ui.look(model, |_, m| m.address().to_owned());
        assert_eq!(address(&mut ui, &model), "");
        ui.on_key(KeyEvent::from(KeyCode::Char('p')), &model);
        assert_eq!(address(&mut ui, &model), "a:1");
    }

    #[test]
    fn what_ends_and_stops_is_said_so() {
        let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
        let mut ui = Ui::default();
        assert_eq!(press(&mut ui, "q"), Some(Command::Quit));
        assert_eq!(press(&mut ui, "?q"), Some(Command::Quit));
        for (key, expect) in [
            ('c', Command::Quit),
            ('z', Command::Suspend),
            ('l', Command::Redraw),
        ] {
            assert_eq!(ui.on_key(control(key), &Model::default()), Some(expect));
        }
        assert_eq!(press(&mut ui, "b"), None);
        assert_eq!(ui.said(), "select a node first");
    }
}

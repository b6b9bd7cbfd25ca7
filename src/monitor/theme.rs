//! How things look: a few colours that a terminal's user has chosen himself, and the glyphs.
//!
//! Only the sixteen named colours are used, in the foreground: what is readable on black and what on
//! white is the terminal's business, and its user has settled it. Meaning is never in the colour alone, so
//! a screen without colours says the same.

use ratatui::style::{Color, Modifier, Style};

/// What a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Whether there are colours.
    pub has_colors: bool,
    /// Whether there are characters beyond ASCII.
    pub has_unicode: bool,
}

/// Colours that tell submitters apart. Red is left out: it means trouble.
const OWNERS: [Color; 6] = [
    Color::Blue,
    Color::Green,
    Color::Magenta,
    Color::Cyan,
    Color::Yellow,
    Color::LightBlue,
];

impl Theme {
    /// Words that are in the background: heads, units, what is zero.
    pub fn dim(&self) -> Style {
        match self.has_colors {
            true => Style::new().fg(Color::DarkGray),
            false => Style::new().add_modifier(Modifier::DIM),
        }
    }

    /// What is looked at first.
    pub fn strong(&self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Jobs of others, remote work: what the cluster is for.
    pub fn remote(&self) -> Style {
        self.color(Color::Green)
    }

    /// Local work.
    pub fn local(&self) -> Style {
        self.color(Color::Blue)
    }

    /// What waits.
    pub fn waiting(&self) -> Style {
        self.color(Color::Yellow)
    }

    /// What went wrong.
    pub fn bad(&self) -> Style {
        match self.has_colors {
            true => Style::new().fg(Color::Red),
            false => Style::new().add_modifier(Modifier::BOLD),
        }
    }

    /// Keys and names of views.
    pub fn accent(&self) -> Style {
        match self.has_colors {
            true => Style::new().fg(Color::Cyan),
            false => Style::new().add_modifier(Modifier::BOLD),
        }
    }

    /// The row that is selected.
    pub fn selected(&self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The jobs of one submitter.
    pub fn owner(&self, number: u32) -> Style {
        self.color(OWNERS[number as usize % OWNERS.len()])
    }

    fn color(&self, color: Color) -> Style {
        match self.has_colors {
            true => Style::new().fg(color),
            false => Style::new(),
        }
    }

    /// One of two glyphs, by what the terminal can show.
    pub fn glyph(&self, unicode: &'static str, ascii: &'static str) -> &'static str {
        match self.has_unicode {
            true => unicode,
            false => ascii,
        }
    }

    /// A slot in use by somebody else's job, by an own one, and a free one.
    pub fn slots(&self) -> [&'static str; 3] {
        match self.has_unicode {
            true => ["■", "▪", "·"],
            false => ["#", "+", "."],
        }
    }

    /// Steps of a bar that grows upwards, from nothing to full.
    pub fn heights(&self) -> &'static [&'static str] {
        match self.has_unicode {
            true => &[" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"],
            false => &[" ", ".", ":", "|"],
        }
    }

    /// Steps of a bar that grows to the right, from nothing to full.
    pub fn widths(&self) -> &'static [&'static str] {
        match self.has_unicode {
            true => &[" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"],
            false => &[" ", "="],
        }
    }
}

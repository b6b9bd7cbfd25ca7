//! Aligned columns that fit: the unimportant ones give way, one of them grows.

use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Page, put};

/// A column as it would like to be.
pub struct Spec {
    /// What stands above it.
    pub title: &'static str,
    /// Its width in cells; of the one that grows, the least.
    pub width: u16,
    /// Whether its cells end at its right edge, as numbers do.
    pub is_right: bool,
    /// The higher, the sooner it is left out.
    pub rank: u8,
    /// How much it may grow.
    pub grows: u16,
}

/// A column as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which one of the specification.
    pub index: usize,
    /// Where it begins.
    pub x: u16,
    /// Its width.
    pub width: u16,
}

/// Chooses columns and widths for `width` cells: one cell between columns and at both ends.
pub fn fit(specs: &[Spec], width: u16) -> Vec<Place> {
    let mut chosen: Vec<usize> = (0..specs.len()).collect();
    let needed = |chosen: &[usize]| -> u16 {
        chosen
            .iter()
            .map(|&index| specs[index].width + 1)
            .sum::<u16>()
            + 1
    };
    while needed(&chosen) > width && chosen.len() > 1 {
        let worst = chosen
            .iter()
            .enumerate()
            .max_by_key(|(_, index)| specs[**index].rank);
        if let Some((at, _)) = worst {
            chosen.remove(at);
        }
    }
    let mut spare = width.saturating_sub(needed(&chosen));
    let mut x = 1;
    chosen
        .into_iter()
        .map(|index| {
            let grown = specs[index].grows.min(spare);
            spare -= grown;
            let place = Place {
                index,
                x,
                width: specs[index].width + grown,
            };
            x += place.width + 1;
            place
        })
        .collect()
}

impl Page<'_> {
    /// Puts a cell of a table on line `y` of the page.
    pub fn cell(&mut self, place: Place, spec: &Spec, y: u16, spans: Vec<Span<'_>>) {
        let line = Line::from(spans);
        let free = usize::from(place.width).saturating_sub(line.width()) as u16;
        let shift = if spec.is_right { free } else { 0 };
        put(
            self.buf,
            self.area.x + place.x + shift,
            self.area.y + y,
            place.width - shift,
            line.spans,
        );
    }

    /// Marks a line as a row that can be selected.
    pub fn row(&mut self, y: u16, key: crate::monitor::ui::RowKey, is_selected: bool) {
        let area = Rect {
            y: self.area.y + y,
            height: 1,
            ..self.area
        };
        self.hits.rows.push((area, key));
        if is_selected {
            self.buf.set_style(area, self.theme.selected());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_give_way_by_rank_and_grow_into_what_is_left() {
        let spec = |width, rank, grows| Spec {
            title: "",
            width,
            is_right: false,
            rank,
            grows,
        };
        let specs = [spec(5, 0, 10), spec(5, 2, 0), spec(5, 1, 0)];
        for (width, expect) in [
            (40, vec![(0, 1, 15), (1, 17, 5), (2, 23, 5)]),
            (20, vec![(0, 1, 6), (1, 8, 5), (2, 14, 5)]),
            (18, vec![(0, 1, 10), (2, 12, 5)]),
            (8, vec![(0, 1, 6)]),
            (3, vec![(0, 1, 5)]),
        ] {
            let places = fit(&specs, width);
            let found: Vec<_> = places.iter().map(|p| (p.index, p.x, p.width)).collect();
            assert_eq!(found, expect, "{width}");
        }
    }
}

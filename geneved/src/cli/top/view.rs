//! The screen of `geneved top`, drawn from the model at any terminal size.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style as Look, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table, Widget};

use super::super::style::OutputStyle;
use super::model::{SortOrder, TopModel, bits, ends, short};

/// State of the screen.
pub(super) struct TopScreen {
    pub(super) model: TopModel,
    pub(super) paused: bool,
    pub(super) delay: Duration,
    pub(super) style: OutputStyle,
}

/// Drawable wrapper of the screen.
pub(super) struct TopView<'a>(pub(super) &'a TopScreen);

impl Widget for TopView<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let model = &self.0.model;
        let rows = |n: usize| u16::try_from(n).unwrap_or(u16::MAX).saturating_add(1);
        let most = (area.height / 4).max(2);
        // Flows get the remaining space; the others at most as many lines as they have rows.
        let [head, links, hosts, flows, drops, foot] = Layout::vertical([
            Constraint::Length(1 + worker_lines(model, area.width)),
            Constraint::Max(rows(model.links.len()).clamp(2, most)),
            Constraint::Max(rows(model.hosts.len()).clamp(2, most)),
            Constraint::Min(3),
            Constraint::Max(rows(model.drops.len()).clamp(2, most)),
            Constraint::Length(1),
        ])
        .areas(area);
        self.render_header(head, buffer);
        self.links(links, buffer);
        self.hosts(hosts, buffer);
        self.flows(flows, buffer);
        self.drops(drops, buffer);
        self.render_footer(foot, buffer);
    }
}

/// Width of one worker's load in columns.
const WORKER: u16 = 26;

fn worker_lines(model: &TopModel, width: u16) -> u16 {
    let a_line = usize::from((width / WORKER).max(1));
    u16::try_from(model.workers.len().div_ceil(a_line).clamp(1, 4)).unwrap_or(1)
}

impl TopView<'_> {
    fn colour(&self, colour: Color) -> Look {
        // Without colours, use the terminal's own attributes.
        match self.0.style.color {
            true => Look::new().fg(colour),
            false => Look::new(),
        }
    }

    fn render_header(&self, area: Rect, buffer: &mut Buffer) {
        let now = &self.0.model.now;
        let title = format!(
            "geneved {}  io {}  links {}  flows {} of {}{}",
            now.version,
            now.io,
            now.links.len(),
            short(now.flows as f64),
            short(now.flows_limit as f64),
            if self.0.paused { "  paused" } else { "" }
        );
        let mut lines = vec![Line::from(title.bold())];
        let a_line = usize::from((area.width / WORKER).max(1));
        let workers: Vec<_> = self.0.model.workers.iter().enumerate().collect();
        for some in workers.chunks(a_line) {
            let spans = some.iter().flat_map(|(n, worker)| {
                const BAR: usize = 10;
                let full = (worker.load * BAR as f64).round() as usize;
                let colour = match worker.load {
                    _ if worker.stalled => Color::Red,
                    load if load > 0.9 => Color::Yellow,
                    _ => Color::Green,
                };
                let load = match worker.stalled {
                    true => "stuck".to_owned(),
                    false => format!("{:>4.0}%", worker.load * 100.0),
                };
                [
                    Span::raw(format!("worker {n:<2}[")),
                    Span::styled("|".repeat(full), self.colour(colour)),
                    Span::raw(format!("{}{load}] ", " ".repeat(BAR.saturating_sub(full)))),
                ]
            });
            lines.push(Line::from(spans.collect::<Vec<_>>()));
        }
        Paragraph::new(lines).render(area, buffer);
    }

    fn table<const N: usize>(
        &self,
        area: Rect,
        buffer: &mut Buffer,
        heads: [&str; N],
        widths: [Constraint; N],
        rows: Vec<[String; N]>,
    ) {
        let aligned = |cells: [String; N]| {
            let cells = cells.into_iter().enumerate().map(|(at, cell)| {
                let line = Line::from(cell);
                match widths[at] {
                    Constraint::Length(_) => line.right_aligned(),
                    _ => line,
                }
            });
            Row::new(cells.collect::<Vec<_>>())
        };
        let head = aligned(heads.map(str::to_owned));
        let head = head.style(Look::new().add_modifier(Modifier::REVERSED));
        Table::new(rows.into_iter().map(aligned), widths)
            .header(head)
            .column_spacing(1)
            .render(area, buffer);
    }

    fn links(&self, area: Rect, buffer: &mut Buffer) {
        let row = |l: &super::model::LinkRow| {
            [
                l.dev.clone(),
                short(l.rx_packets),
                bits(l.rx_bytes),
                short(l.tx_packets),
                bits(l.tx_bytes),
                short(l.drops),
                short(l.flows as f64),
            ]
        };
        let rows = self.0.model.links.iter().map(row).collect();
        let heads = [
            "LINK", "RX pkt/s", "RX bit/s", "TX pkt/s", "TX bit/s", "drop/s", "flows",
        ];
        self.table(area, buffer, heads, column_widths(), rows);
    }

    fn hosts(&self, area: Rect, buffer: &mut Buffer) {
        let row = |h: &crate::control::protocol::HostRates| {
            [
                h.address.to_string(),
                short(h.rx_packets_rate as f64),
                bits(h.rx_bytes_rate as f64),
                short(h.tx_packets_rate as f64),
                bits(h.tx_bytes_rate as f64),
                String::new(),
                short(h.flows as f64),
            ]
        };
        let rows = self.0.model.hosts.iter().map(row).collect();
        let heads = [
            "HOST", "RX pkt/s", "RX bit/s", "TX pkt/s", "TX bit/s", "", "flows",
        ];
        self.table(area, buffer, heads, column_widths(), rows);
    }

    fn flows(&self, area: Rect, buffer: &mut Buffer) {
        let row = |f: &crate::control::protocol::FlowRates| {
            let (proto, src, dst) = ends(f);
            [
                proto,
                src,
                dst,
                f.flow.dev.to_string(),
                short(f.packets_rate as f64),
                bits(f.bytes_rate as f64),
            ]
        };
        let rows = self.0.model.flows.iter().map(row).collect();
        let heads = ["FLOW", "from", "to", "dev", "pkt/s", "bit/s"];
        let widths = [
            Constraint::Max(6),
            Constraint::Fill(1),
            Constraint::Fill(1),
            Constraint::Max(15),
            Constraint::Length(8),
            Constraint::Length(8),
        ];
        self.table(area, buffer, heads, widths, rows);
    }

    fn drops(&self, area: Rect, buffer: &mut Buffer) {
        let row = |d: &super::model::DropRow| {
            [
                d.reason.clone(),
                d.direction.to_owned(),
                if d.dev.is_empty() {
                    "-".into()
                } else {
                    d.dev.clone()
                },
                short(d.rate),
                short(d.total as f64),
            ]
        };
        let rows = self.0.model.drops.iter().map(row).collect();
        let heads = ["DROP", "direction", "dev", "drop/s", "total"];
        let widths = [
            Constraint::Fill(1),
            Constraint::Max(9),
            Constraint::Max(15),
            Constraint::Length(8),
            Constraint::Length(8),
        ];
        self.table(area, buffer, heads, widths, rows);
    }

    fn render_footer(&self, area: Rect, buffer: &mut Buffer) {
        let keys = [
            ("q", "quit", false),
            ("b", "bytes", self.0.model.order == SortOrder::Bytes),
            ("p", "packets", self.0.model.order == SortOrder::Packets),
            ("n", "name", self.0.model.order == SortOrder::Name),
            ("space", "pause", self.0.paused),
        ];
        let mut spans = Vec::new();
        for (key, word, on) in keys {
            spans.push(Span::from(key).bold());
            let word = Span::raw(format!(" {word}"));
            spans.push(if on { word.underlined() } else { word });
            spans.push(Span::raw("  "));
        }
        spans.push(Span::from("+ -").bold());
        spans.push(Span::raw(format!(" every {:?}", self.0.delay)));
        Paragraph::new(Line::from(spans)).render(area, buffer);
    }
}

fn column_widths() -> [Constraint; 7] {
    let number = Constraint::Length(8);
    let name = Constraint::Fill(1);
    [name, number, number, number, number, number, number]
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{look, model};
    use super::*;

    fn drawn(width: u16, height: u16, model: TopModel) -> Vec<String> {
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        let screen = TopScreen {
            model,
            paused: false,
            delay: Duration::from_secs(2),
            style: OutputStyle::default(),
        };
        TopView(&screen).render(area, &mut buffer);
        let row = |y| {
            (0..width)
                .map(|x| buffer[(x, y)].symbol())
                .collect::<String>()
        };
        (0..height).map(row).collect()
    }

    #[test]
    fn everything_is_on_a_screen_of_80_by_24() {
        let rows = drawn(80, 24, model());
        let has = |words: &[&str]| {
            let found = rows
                .iter()
                .any(|row| words.iter().all(|word| row.contains(word)));
            assert!(found, "{words:?} in\n{}", rows.join("\n"));
        };
        assert!(rows[0].starts_with("geneved 9.9  io io_uring  links 2  flows 12 of 1.0k"));
        assert!(
            rows[1].starts_with("worker 0 [|||||       50%]"),
            "{}",
            rows[1]
        );
        has(&["gnv0", "100", "80k", "50"]);
        has(&["192.0.2.2", "8.0M"]);
        has(&["tcp", "10.0.0.1:1000", "10.0.0.2:80", "gnv0", "16M"]);
        has(&["no-route", "egress", "gnv0", "50", "100"]);
        has(&["unknown-vni", "ingress", "-"]);
        assert!(
            rows[23].starts_with("q quit  b bytes  p packets  n name  space pause  + - every 2s")
        );
    }

    #[test]
    fn it_can_be_drawn_at_any_size() {
        for (width, height) in [(0, 0), (1, 1), (10, 3), (30, 8), (80, 10), (300, 100)] {
            drawn(width, height, model());
        }
        let mut many = look(1);
        many.workers = vec![Default::default(); 64];
        let model = TopModel::new(many, SortOrder::Bytes);
        assert!(drawn(80, 24, model)[4].contains("worker 11"));
    }
}

//! `geneved top`: live rates of links, hosts, flows and workers, on a terminal or line by line.

mod model;
mod view;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use self::model::{SortOrder, TopModel};
use self::view::{TopScreen, TopView};
use super::command::{CommandDef, GlobalCommand};
use super::context::CommandContext;
use super::error::CliError;
use super::field::key;
use super::grammar::{self, Keyword};
use super::output;
use super::supported_options::SupportedOptions;
use crate::config::value::ValueError;
use crate::control::protocol::{Rates, RatesReply, Request};

/// Default interval between samples.
const DELAY: Duration = Duration::from_secs(2);
/// Delay before the second sample, for which rates are first known.
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// Number of flows to request.
const FLOWS_SHOWN: u32 = 100;

struct TopCommand {
    delay: Duration,
    batch: bool,
    iterations: Option<u32>,
    order: SortOrder,
}

impl Default for TopCommand {
    fn default() -> Self {
        TopCommand {
            delay: DELAY,
            batch: false,
            iterations: None,
            order: SortOrder::Bytes,
        }
    }
}

type TopKeyword = Keyword<TopCommand>;

const TOP_KEYWORDS: [TopKeyword; 4] = [
    TopKeyword::value(&["-d", "delay"], "SECONDS", |w, v| {
        w.delay = seconds(v)?;
        Ok(())
    }),
    TopKeyword::flag(&["-b", "batch"], |w| w.batch = true),
    key!(TopCommand; "-n" | "iterations", "N", iterations),
    TopKeyword::value(&["sort"], "{ bytes | packets | name }", |w, v| {
        w.order = v.parse()?;
        Ok(())
    }),
];

fn seconds(text: &str) -> Result<Duration, ValueError> {
    let number: Option<f64> = text.parse().ok();
    let number = number.filter(|n| (0.1..=3600.0).contains(n));
    number
        .map(Duration::from_secs_f64)
        .ok_or_else(|| ValueError::new("expected seconds, from 0.1 to 3600"))
}

/// The command.
pub const TOP_COMMAND: GlobalCommand = GlobalCommand {
    name: "top",
    about: "how busy workers, links, hosts and flows are",
    command: CommandDef::new(&["top"], run, || grammar::words(&TOP_KEYWORDS))
        .honouring(SupportedOptions::BRIEF),
    notes: "-b: lines rather than a screen; so it is, too, where there is no terminal.\n-d: seconds between two looks, 2 if left out.   -n: so many looks, then end.\nKeys: q quit, b bytes, p packets, n name, space pause, + and - how often.",
};

/// Shows live rates until the user quits, or for the requested number of iterations.
fn run(context: &mut CommandContext, words: &[String]) -> Result<(), CliError> {
    let mut wanted = TopCommand::default();
    grammar::parse(&TOP_KEYWORDS, words, &mut wanted)?;
    // Without a terminal, print lines.
    let plain = wanted.batch || context.style().json || !io::stdout().is_terminal();
    let mut model = TopModel::new(look(context, wanted.order)?, wanted.order);
    if plain {
        return lines(context, &wanted, &mut model);
    }
    let terminal = ratatui::try_init().map_err(|e| broken(&e))?;
    let outcome = screen(context, terminal, &wanted, model);
    ratatui::restore();
    outcome
}

fn broken(error: &io::Error) -> CliError {
    CliError::Refused(format!("Error: the terminal: {error}"))
}

fn look(context: &mut CommandContext, order: SortOrder) -> Result<Rates, CliError> {
    let request = Request::GetRates {
        flows: FLOWS_SHOWN,
        by_packets: order == SortOrder::Packets,
    };
    Ok(context.call::<RatesReply>(&request)?.rates)
}

/// Batch mode.
fn lines(
    context: &mut CommandContext,
    wanted: &TopCommand,
    model: &mut TopModel,
) -> Result<(), CliError> {
    let mut left = wanted.iterations.unwrap_or(u32::MAX);
    let mut wait = wanted.delay.min(FIRST_DELAY);
    while left > 0 {
        std::thread::sleep(wait);
        model.next(look(context, wanted.order)?);
        output::print(&context.style(), &[&*model])?;
        if left > 1 && !context.style().json {
            output::say("")?;
        }
        if output::is_closed() {
            break;
        }
        left -= 1;
        wait = wanted.delay;
    }
    Ok(())
}

fn screen(
    context: &mut CommandContext,
    mut terminal: ratatui::DefaultTerminal,
    wanted: &TopCommand,
    model: TopModel,
) -> Result<(), CliError> {
    let mut screen = TopScreen {
        model,
        paused: false,
        delay: wanted.delay,
        style: context.style(),
    };
    let mut left = wanted.iterations.unwrap_or(u32::MAX);
    let mut due = Instant::now() + wanted.delay.min(FIRST_DELAY);
    loop {
        terminal
            .draw(|frame| frame.render_widget(TopView(&screen), frame.area()))
            .map_err(|e| broken(&e))?;
        let wait = due.saturating_duration_since(Instant::now());
        if event::poll(wait).map_err(|e| broken(&e))? {
            match event::read().map_err(|e| broken(&e))? {
                Event::Key(key)
                    if key.kind != KeyEventKind::Release && pressed(&mut screen, key) =>
                {
                    return Ok(());
                }
                // A resized terminal is redrawn at once.
                _ => {}
            }
            continue;
        }
        due = Instant::now() + screen.delay;
        if screen.paused {
            continue;
        }
        let order = screen.model.order;
        screen.model.next(look(context, order)?);
        left -= 1;
        if left == 0 {
            return Ok(());
        }
    }
}

/// Handles a key. Returns true if it quits.
fn pressed(screen: &mut TopScreen, key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if control => return true,
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('b') => screen.model.sort(SortOrder::Bytes),
        KeyCode::Char('p') => screen.model.sort(SortOrder::Packets),
        KeyCode::Char('n') => screen.model.sort(SortOrder::Name),
        KeyCode::Char(' ') => screen.paused = !screen.paused,
        KeyCode::Char('+') => screen.delay = (screen.delay * 2).min(Duration::from_secs(60)),
        KeyCode::Char('-') => screen.delay = (screen.delay / 2).max(Duration::from_millis(250)),
        _ => {}
    }
    false
}

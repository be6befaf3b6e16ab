//! Output style from the options: format, units, colours.

use std::net::IpAddr;

use ipnet::IpNet;

use super::options::{ColorMode, GlobalOptions};
use crate::config::value::ProtocolValue;

/// Output style.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputStyle {
    /// JSON.
    pub json: bool,
    /// Indented JSON.
    pub pretty: bool,
    /// One line per object, in columns.
    pub brief: bool,
    /// One line per object, joined with backslashes.
    pub oneline: bool,
    /// Details.
    pub details: bool,
    /// Number of times that `-s` was given.
    pub statistics: u8,
    /// Unit prefixes.
    pub human: bool,
    /// Unit prefixes that are powers of 1024.
    pub iec: bool,
    /// Numbers instead of names.
    pub numeric: bool,
    /// Print a timestamp line before each event.
    pub timestamp: bool,
    /// Print the time in brackets before each event.
    pub tshort: bool,
    /// Only objects of this address family.
    pub family: Option<FamilyOption>,
    /// Colours.
    pub color: bool,
    /// Colours for a dark background.
    pub dark: bool,
}

/// Address family selected by `-4` or `-6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyOption {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

impl FamilyOption {
    /// Family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            FamilyOption::Inet
        } else {
            FamilyOption::Inet6
        }
    }

    /// Name of the family, as `ip` calls it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            FamilyOption::Inet => "inet",
            FamilyOption::Inet6 => "inet6",
        }
    }
}

/// Kinds of text that have a colour.
#[derive(Clone, Copy)]
enum Colored {
    Name,
    Mac,
    Inet,
    Inet6,
    Good,
    Bad,
}

impl OutputStyle {
    /// Output style for these options on this terminal.
    #[must_use]
    pub fn of(options: &GlobalOptions) -> Self {
        use std::io::IsTerminal;
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let terminal =
            || std::io::stdout().is_terminal() && std::env::var_os("TERM") != Some("dumb".into());
        let wanted = match options.color {
            Some(ColorMode::Never) => false,
            Some(ColorMode::Auto) | None => terminal(),
            Some(ColorMode::Always) => true,
        };
        let background = std::env::var("COLORFGBG").unwrap_or_default();
        OutputStyle {
            json: options.json,
            pretty: options.pretty,
            brief: options.brief,
            oneline: options.oneline,
            details: options.details,
            statistics: options.statistics,
            human: options.human || options.iec,
            iec: options.iec,
            numeric: options.numeric,
            timestamp: options.timestamp,
            tshort: options.tshort,
            family: match (options.inet, options.inet6) {
                (true, false) => Some(FamilyOption::Inet),
                (false, true) => Some(FamilyOption::Inet6),
                _ => None,
            },
            color: wanted && !options.json && !set("NO_COLOR"),
            dark: is_dark(&background),
        }
    }

    /// Returns the style without statistics, for lines without room for them.
    #[must_use]
    pub const fn plain(self) -> Self {
        OutputStyle {
            statistics: 0,
            ..self
        }
    }

    /// Whether an address belongs to the selected family, if any.
    #[must_use]
    pub fn wants(&self, address: IpAddr) -> bool {
        self.family.is_none_or(|f| f == FamilyOption::of(address))
    }

    /// Formats a number, shortened with `-h` or `-iec`.
    #[must_use]
    pub fn number(&self, number: u64) -> String {
        let base: f64 = if self.iec { 1024.0 } else { 1000.0 };
        if !self.human || (number as f64) < base {
            return number.to_string();
        }
        let mut value = number as f64;
        let mut unit = "";
        for next in ["k", "M", "G", "T", "P", "E"] {
            if value < base - 0.5 {
                break;
            }
            value /= base;
            unit = next;
        }
        let i = if self.iec { "i" } else { "" };
        if value < 9.95 {
            format!("{value:.1}{unit}{i}")
        } else {
            format!("{value:.0}{unit}{i}")
        }
    }

    /// Formats a counter if `-s` was given.
    #[must_use]
    pub fn count(&self, number: u64) -> Option<String> {
        (self.statistics > 0).then(|| self.number(number))
    }

    /// Formats a protocol by name, or with `-N` by number.
    #[must_use]
    pub fn proto(&self, proto: ProtocolValue) -> String {
        match self.numeric {
            true => proto.0.to_string(),
            false => proto.to_string(),
        }
    }

    fn paint(&self, paint: Colored, text: &str) -> String {
        if !self.color || text.is_empty() {
            return text.to_owned();
        }
        let code = match paint {
            Colored::Name => 36,
            Colored::Mac => 33,
            Colored::Inet => 35,
            Colored::Inet6 => 34,
            Colored::Good => 32,
            Colored::Bad => 31,
        };
        let bold = if self.dark { "1;" } else { "" };
        format!("\x1b[{bold}{code}m{text}\x1b[0m")
    }

    /// Formats the name of an interface or object.
    #[must_use]
    pub fn name(&self, text: impl std::fmt::Display) -> String {
        self.paint(Colored::Name, &text.to_string())
    }

    /// Formats an Ethernet, IPv4 or IPv6 address, a prefix, a range, or an address with a port.
    #[must_use]
    pub fn address(&self, text: impl std::fmt::Display) -> String {
        let text = text.to_string();
        let byte = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
        let colons = text.matches(':').count();
        let paint = match colons {
            5 if text.split(':').all(byte) => Colored::Mac,
            0 | 1 if !text.starts_with('[') => Colored::Inet,
            _ => Colored::Inet6,
        };
        self.paint(paint, &text)
    }

    /// Formats addresses separated by commas.
    #[must_use]
    pub fn addresses(&self, all: &[IpAddr]) -> String {
        let all: Vec<_> = all.iter().map(|a| self.address(a)).collect();
        all.join(",")
    }

    /// Formats an address with its prefix length; like `ip`, only the address is coloured.
    #[must_use]
    pub fn prefix(&self, net: &IpNet) -> String {
        format!("{}/{}", self.address(net.addr()), net.prefix_len())
    }

    /// Formats a good or bad state.
    #[must_use]
    pub fn health(&self, good: bool, text: &str) -> String {
        self.paint(if good { Colored::Good } else { Colored::Bad }, text)
    }

    /// Formats the operational state of an interface; `UNKNOWN` and others have no colour.
    #[must_use]
    pub fn operstate(&self, text: &str) -> String {
        match text.trim_end() {
            "UP" => self.paint(Colored::Good, text),
            "DOWN" | "LOST" => self.paint(Colored::Bad, text),
            _ => text.to_owned(),
        }
    }
}

/// `COLORFGBG` ends with the background's number among the terminal's sixteen colours.
fn is_dark(colorfgbg: &str) -> bool {
    let background = colorfgbg.rsplit_once(';').map(|(_, background)| background);
    matches!(
        background,
        Some("0" | "1" | "2" | "3" | "4" | "5" | "6" | "8")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shortened_in_the_units_asked_for() {
        let human = OutputStyle {
            human: true,
            ..OutputStyle::default()
        };
        let iec = OutputStyle { iec: true, ..human };
        let all = |style: OutputStyle| {
            [999, 1000, 1024, 123_456, 12_345_678_901].map(|n| style.number(n))
        };
        assert_eq!(all(OutputStyle::default())[4], "12345678901");
        assert_eq!(all(human), ["999", "1.0k", "1.0k", "123k", "12G"]);
        assert_eq!(all(iec), ["999", "1000", "1.0ki", "121ki", "11Gi"]);
    }

    #[test]
    fn colours_are_those_of_ip() {
        let style = OutputStyle {
            color: true,
            ..OutputStyle::default()
        };
        assert_eq!(style.name("gnv0"), "\x1b[36mgnv0\x1b[0m");
        let mac = "02:00:00:00:00:0a";
        assert_eq!(style.address(mac), format!("\x1b[33m{mac}\x1b[0m"));
        assert_eq!(style.address("10.0.0.1:80"), "\x1b[35m10.0.0.1:80\x1b[0m");
        assert_eq!(style.address("fd00::1"), "\x1b[34mfd00::1\x1b[0m");
        assert_eq!(style.address("[fd00::1]:80"), "\x1b[34m[fd00::1]:80\x1b[0m");
        assert_eq!(style.operstate("UP"), "\x1b[32mUP\x1b[0m");
        assert_eq!(style.operstate("DOWN"), "\x1b[31mDOWN\x1b[0m");
        assert_eq!(style.operstate("UNKNOWN"), "UNKNOWN");
        let dark = OutputStyle {
            dark: true,
            ..style
        };
        assert_eq!(dark.name("a"), "\x1b[1;36ma\x1b[0m");
        assert!(is_dark("15;0") && is_dark("7;default;8") && !is_dark("0;15") && !is_dark(""));
    }
}

//! A chart of bars for a terminal.

/// How many characters the longest bar has.
const WIDTH: u64 = 40;

/// One bar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bar {
    pub name: String,
    pub value: u64,
}

/// Whether what reads the output knows UTF-8, by the first of the locale's variables that is set (POSIX.1-2017 §8.2).
pub(super) fn is_utf8(environment: &[(String, String)]) -> bool {
    let set = |name: &str| {
        environment.iter().find(|(found, value)| found == name && !value.is_empty()).map(|(_, value)| value)
    };
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// One line for each bar: its name, the bar in eighths of a character where there are such, and its value.
pub(super) fn draw(bars: &[Bar], is_utf8: bool) -> String {
    let most = bars.iter().map(|bar| bar.value).max().unwrap_or(0).max(1);
    let names = bars.iter().map(|bar| bar.name.chars().count()).max().unwrap_or(0);
    let values = bars.iter().map(|bar| bar.value.to_string().len()).max().unwrap_or(0);
    let line = |Bar { name, value }: &Bar| {
        let bar = if is_utf8 { eighths(*value, most) } else { signs(*value, most) };
        let gap = usize::try_from(WIDTH).unwrap_or_default() - bar.chars().count();
        format!("{name:names$}  {bar}{}  {value:>values$}", " ".repeat(gap))
    };
    bars.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What there is is seen, however little it is.
fn share(value: u64, most: u64, of: u64) -> usize {
    let share = u128::from(value) * u128::from(of) / u128::from(most);
    usize::try_from(share).unwrap_or_default().max(usize::from(value > 0))
}

fn eighths(value: u64, most: u64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = share(value, most, WIDTH * 8);
    "█".repeat(eighths / 8) + PARTS[eighths % 8]
}

fn signs(value: u64, most: u64) -> String {
    "#".repeat(share(value, most, WIDTH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, value: u64) -> Bar {
        Bar { name: name.into(), value }
    }

    #[test]
    fn bars_are_as_long_as_their_share() {
        let bars = [bar("a", 80), bar("bb", 41), bar("c", 1), bar("d", 0)];
        let gap = |count| " ".repeat(count);
        assert_eq!(
            draw(&bars, true),
            format!(
                "a   {}  80\nbb  {}▌{}  41\nc   ▌{}   1\nd   {}   0",
                "█".repeat(40),
                "█".repeat(20),
                gap(19),
                gap(39),
                gap(40)
            )
        );
        assert_eq!(
            draw(&bars, false),
            format!(
                "a   {}  80\nbb  {}{}  41\nc   #{}   1\nd   {}   0",
                "#".repeat(40),
                "#".repeat(20),
                gap(20),
                gap(39),
                gap(40)
            )
        );
        assert_eq!(
            draw(&[bar("x", u64::MAX), bar("y", 1)], true).lines().nth(1).map(|line| line.contains('▏')),
            Some(true)
        );
        assert_eq!(draw(&[], true), "");
    }

    #[test]
    fn the_first_variable_of_the_locale_counts() {
        let is_utf8 = |set: &[(&str, &str)]| {
            let set: Vec<_> = set.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            is_utf8(&set)
        };
        assert!(is_utf8(&[("LANG", "de_DE.UTF-8")]) && is_utf8(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]));
        assert!(!is_utf8(&[]) && !is_utf8(&[("LC_ALL", "C"), ("LANG", "en_GB.UTF-8")]));
    }
}

//! Numbers, times and patterns of numbers.

use mimbox_stack::Duration;

use crate::script::syntax::{Pattern, Value};

/// `1460`, `-1`, `64k`, `0x10`, `10*1460`.
pub(super) fn number(word: &str) -> Option<i64> {
    if let Some((left, right)) = word.split_once('*') {
        return number(left)?.checked_mul(number(right)?);
    }
    if let Some(hex) = word.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok();
    }
    if let Some(kilo) = word.strip_suffix('k') {
        return kilo.parse::<i64>().ok()?.checked_mul(1024);
    }
    word.parse().ok()
}

/// `0.2` and `200ms`, `10us`, `2s`, `5m`.
pub(super) fn duration(word: &str) -> Option<Duration> {
    let units = [("us", 1_000.0), ("ms", 1e6), ("s", 1e9), ("m", 60e9)];
    let (digits, nanos) = units
        .iter()
        .find_map(|&(unit, nanos)| word.strip_suffix(unit).map(|digits| (digits, nanos)))
        .unwrap_or((word, 1e9));
    let value: f64 = digits.parse().ok()?;
    (value >= 0.0 && value.is_finite()).then(|| Duration::from_nanos((value * nanos).round() as u64))
}

/// `*`, `7`, `$x`, `$x+1`, `1..9`, `>=3`, `<=3`.
pub(super) fn pattern(word: &str) -> Option<Pattern> {
    if word == "*" {
        return Some(Pattern::Any);
    }
    if let Some(least) = word.strip_prefix(">=") {
        return Some(Pattern::Within(number(least)?, i64::MAX));
    }
    if let Some(most) = word.strip_prefix("<=") {
        return Some(Pattern::Within(i64::MIN, number(most)?));
    }
    if let Some((least, most)) = word.split_once("..") {
        return Some(Pattern::Within(number(least)?, number(most)?));
    }
    value(word).map(Pattern::Is)
}

/// `7`, `$x`, `$x+1`, `$x-1`.
fn value(word: &str) -> Option<Value> {
    let Some(name) = word.strip_prefix('$') else { return number(word).map(Value::Number) };
    let end = name.find(['+', '-']).unwrap_or(name.len());
    let (name, plus) = name.split_at(end);
    let plus = if plus.is_empty() { 0 } else { number(plus.strip_prefix('+').unwrap_or(plus))? };
    let sound = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    sound.then(|| Value::Variable(name.to_owned(), plus))
}

/// A number, or a time in nanoseconds.
pub(in crate::script) fn amount(word: &str) -> Option<i64> {
    number(word).or_else(|| duration(word).map(|time| time.as_nanos() as i64))
}

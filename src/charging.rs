//! How charges are tried again and where they go, as the operator configures it: `[retries]` and `[[route]]`. The supervisor reads the
//! settings; the edge gets the [`Policy`] that they make.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::card::brand::Brand;
use crate::card::tenant::Mode;

/// `[retries]`: when a declined charge is tried again, for a charge that asks for it. Hard declines, risk, missing authentication and
/// errors are never tried again by a schedule; wrong card data is once the card has been updated.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetriesConfig {
    /// What a merchant's charge that says nothing gets: `none` or `schedule`.
    pub default: String,
    /// From decline to next attempt, where the issuer says that it may work later.
    pub soft: Vec<String>,
    /// The same where the issuer gives no reason.
    pub generic: Vec<String>,
    /// After so many days nothing is tried any more.
    pub days_max: u32,
    /// Whether a card update ends the wait: the new data is tried at once.
    pub at_card_update: bool,
}

impl Default for RetriesConfig {
    fn default() -> Self {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        Self {
            default: "none".to_owned(),
            soft: words(&["1d", "3d", "5d", "7d"]),
            generic: words(&["2d", "5d"]),
            days_max: 30,
            at_card_update: true,
        }
    }
}

/// `[[route]]`: where charges go that name no destination.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The destinations in order: the first is tried first, the others when it fails over.
    pub destinations: Vec<String>,
    /// Brands that it is for; all if absent.
    #[serde(default)]
    pub brands: Vec<String>,
    /// Currencies that it is for; all if absent.
    #[serde(default)]
    pub currencies: Vec<String>,
    /// From this amount on, in minor units.
    pub amount_min: Option<i64>,
    /// Up to this amount, in minor units.
    pub amount_max: Option<i64>,
    /// So many of a hundred of the charges that fit; all that are left if absent.
    pub share: Option<u8>,
    /// When it moves on to the next destination: `never`, `not_sent` or `soft_decline` (which is `not_sent` as well).
    #[serde(default = "not_sent")]
    pub failover: String,
}

fn not_sent() -> String {
    "not_sent".to_owned()
}

/// What the settings make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// When a charge is tried again.
    pub retries: RetryPolicy,
    /// The routes in the order of the file.
    pub routes: Vec<Route>,
}

/// When a charge is tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Whether a merchant's charge that says nothing is tried again.
    pub by_default: bool,
    /// After a soft decline, in seconds.
    pub soft_seconds: Vec<i64>,
    /// After a decline without a reason, in seconds.
    pub generic_seconds: Vec<i64>,
    /// Counted from the charge, in seconds.
    pub seconds_max: i64,
    /// Whether a card update ends the wait.
    pub at_card_update: bool,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// In the order in which they are tried; at least one.
    pub destinations: Vec<String>,
    /// The mode of all of them.
    pub mode: Mode,
    /// Brands; all if empty.
    pub brands: Vec<Brand>,
    /// Currencies; all if empty.
    pub currencies: Vec<String>,
    /// Amounts in minor units, both ends included.
    pub amounts: (i64, i64),
    /// Of a hundred.
    pub share: Option<u8>,
    /// Whether it moves on where certainly nothing was sent.
    pub after_not_sent: bool,
    /// Whether it moves on after a soft decline.
    pub after_soft_decline: bool,
}

impl RetriesConfig {
    /// The policy that it makes, or what is wrong with it.
    pub fn policy(&self) -> Result<RetryPolicy, Vec<String>> {
        let mut faults = Vec::new();
        if !matches!(self.default.as_str(), "none" | "schedule") {
            faults.push("retries.default: use none or schedule".to_owned());
        }
        if !(1..=60).contains(&self.days_max) {
            faults.push("retries.days_max: use 1 to 60".to_owned());
        }
        let mut delays = |name: &str, list: &[String]| {
            let read: Option<Vec<i64>> = list.iter().map(|text| seconds_of(text)).collect();
            if read.is_none() || list.len() > 20 {
                faults.push(format!(
                    "retries.{name}: up to 20 delays such as \"30m\", \"12h\" or \"3d\", each from 1s to 60d"
                ));
            }
            read.unwrap_or_default()
        };
        let (soft_seconds, generic_seconds) = (delays("soft", &self.soft), delays("generic", &self.generic));
        let policy = RetryPolicy {
            by_default: self.default == "schedule",
            soft_seconds,
            generic_seconds,
            seconds_max: i64::from(self.days_max).saturating_mul(86_400),
            at_card_update: self.at_card_update,
        };
        if faults.is_empty() { Ok(policy) } else { Err(faults) }
    }
}

/// `30s`, `5m`, `12h`, `3d`; none for anything else, or longer than 60 days.
fn seconds_of(text: &str) -> Option<i64> {
    let unit = match text.bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3_600,
        b'd' => 86_400,
        _ => return None,
    };
    let number = text.get(..text.len() - 1)?;
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = number.parse::<i64>().ok().filter(|_| digits)?.checked_mul(unit)?;
    (1..=60 * 86_400).contains(&seconds).then_some(seconds)
}

/// The routes that the settings make over these destinations (name and mode), or what is wrong with them.
pub fn routes(from: &[RouteConfig], modes: &BTreeMap<String, Mode>) -> Result<Vec<Route>, Vec<String>> {
    let (mut out, mut faults) = (Vec::new(), Vec::new());
    for (number, config) in (1..).zip(from) {
        match config.route(modes) {
            Ok(route) => out.push(route),
            Err(fault) => faults.push(format!("route {number}: {fault}")),
        }
    }
    if faults.is_empty() { Ok(out) } else { Err(faults) }
}

impl RouteConfig {
    fn route(&self, modes: &BTreeMap<String, Mode>) -> Result<Route, &'static str> {
        let known: Option<Vec<Mode>> =
            self.destinations.iter().map(|name| modes.get(name).copied()).collect();
        let known = known.ok_or("destinations: name destinations that stand in this file")?;
        let mode = *known.first().ok_or("destinations: name at least one")?;
        if known.iter().any(|other| *other != mode) {
            return Err("destinations: all of one route are of one mode, test or live");
        }
        let twice =
            |at: usize, name: &String| self.destinations.iter().skip(at + 1).any(|other| other == name);
        if self.destinations.iter().enumerate().any(|(at, name)| twice(at, name)) {
            return Err("destinations: name each once");
        }
        let brands: Vec<Brand> = self.brands.iter().map(|name| Brand::from_name(name)).collect();
        if brands.contains(&Brand::Unknown) {
            return Err(
                "brands: use amex, diners, discover, jcb, maestro, mastercard, mir, unionpay or visa",
            );
        }
        let is_code = |code: &String| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        if !self.currencies.iter().all(is_code) {
            return Err("currencies: three capital letters each");
        }
        let amounts = (self.amount_min.unwrap_or(0), self.amount_max.unwrap_or(i64::MAX));
        if amounts.0 < 0 || amounts.0 > amounts.1 {
            return Err("amount_min: from 0 up to amount_max, in minor units");
        }
        if self.share.is_some_and(|share| !(1..=99).contains(&share)) {
            return Err("share: 1 to 99; a route without one takes what is left");
        }
        if !matches!(self.failover.as_str(), "never" | "not_sent" | "soft_decline") {
            return Err("failover: use never, not_sent or soft_decline");
        }
        Ok(Route {
            destinations: self.destinations.clone(),
            mode,
            brands,
            currencies: self.currencies.clone(),
            amounts,
            share: self.share,
            after_not_sent: self.failover != "never",
            after_soft_decline: self.failover == "soft_decline",
        })
    }
}

impl Policy {
    /// The route of a charge. Of those that fit, the first without a share takes all; before it, each with a share takes so many of a
    /// hundred, by `point` (0 to 99). Where the shares leave something and nothing takes it, the last with a share does.
    pub fn route(
        &self,
        mode: Mode,
        brand: Brand,
        (amount, currency): (i64, &str),
        point: u8,
    ) -> Option<&Route> {
        let fits = |route: &&Route| {
            route.mode == mode
                && (route.brands.is_empty() || route.brands.contains(&brand))
                && (route.currencies.is_empty() || route.currencies.iter().any(|code| code == currency))
                && (route.amounts.0..=route.amounts.1).contains(&amount)
        };
        let (mut taken, mut last) = (0_u32, None);
        for route in self.routes.iter().filter(fits) {
            let Some(share) = route.share else { return Some(route) };
            taken += u32::from(share);
            if u32::from(point) < taken {
                return Some(route);
            }
            last = Some(route);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str) -> Result<Route, &'static str> {
        let config: RouteConfig = toml::from_str(text).unwrap();
        let modes = [("a", Mode::Test), ("b", Mode::Test), ("live", Mode::Live)];
        config.route(&modes.map(|(name, mode)| (name.to_owned(), mode)).into_iter().collect())
    }

    #[test]
    fn delays_have_a_unit_and_an_end() {
        for (text, seconds) in [
            ("30s", Some(30)),
            ("5m", Some(300)),
            ("12h", Some(43_200)),
            ("3d", Some(259_200)),
            ("0s", None),
            ("61d", None),
            ("-1d", None),
            ("+1d", None),
            ("3", None),
            ("d", None),
            ("", None),
            ("3é", None),
        ] {
            assert_eq!(seconds_of(text), seconds, "{text}");
        }
        assert_eq!(RetriesConfig::default().policy().unwrap().soft_seconds[0], 86_400);
        let wrong = RetriesConfig {
            default: "all".to_owned(),
            days_max: 0,
            soft: vec!["x".to_owned()],
            ..RetriesConfig::default()
        };
        assert_eq!(wrong.policy().unwrap_err().len(), 3);
    }

    #[test]
    fn a_route_that_cannot_be_meant_is_refused() {
        assert!(route("destinations = [\"a\", \"b\"]").is_ok_and(|route| route.after_not_sent));
        for (text, fault) in [
            ("destinations = []", "destinations:"),
            ("destinations = [\"c\"]", "destinations:"),
            ("destinations = [\"a\", \"live\"]", "destinations:"),
            ("destinations = [\"a\", \"a\"]", "destinations:"),
            ("destinations = [\"a\"]\nbrands = [\"visas\"]", "brands:"),
            ("destinations = [\"a\"]\ncurrencies = [\"usd\"]", "currencies:"),
            ("destinations = [\"a\"]\namount_min = 5\namount_max = 4", "amount_min:"),
            ("destinations = [\"a\"]\nshare = 100", "share:"),
            ("destinations = [\"a\"]\nfailover = \"always\"", "failover:"),
        ] {
            assert!(route(text).unwrap_err().starts_with(fault), "{text}");
        }
    }

    #[test]
    fn shares_divide_what_fits_and_the_rest_goes_on() {
        let with = |text: &str| route(text).unwrap();
        let policy = Policy {
            routes: vec![
                with("destinations = [\"b\"]\nbrands = [\"amex\"]"),
                with("destinations = [\"a\"]\nshare = 30\ncurrencies = [\"USD\"]"),
                with("destinations = [\"b\"]\nshare = 30\ncurrencies = [\"USD\"]\namount_max = 999"),
                with("destinations = [\"a\", \"b\"]\ncurrencies = [\"USD\"]"),
            ],
            ..Policy::default()
        };
        let to = |brand, amount, currency, point| {
            let route = policy.route(Mode::Test, brand, (amount, currency), point);
            route.map(|route| route.destinations.join(","))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(to(Brand::Amex, 5, "EUR", 99), some("b"));
        assert_eq!(to(Brand::Visa, 5, "EUR", 0), None);
        assert_eq!(to(Brand::Visa, 5, "USD", 29), some("a"));
        assert_eq!(to(Brand::Visa, 5, "USD", 30), some("b"));
        assert_eq!(to(Brand::Visa, 1_000, "USD", 30), some("a,b"));
        assert_eq!(to(Brand::Visa, 5, "USD", 60), some("a,b"));
        assert_eq!(policy.route(Mode::Live, Brand::Visa, (5, "USD"), 60), None);
    }
}

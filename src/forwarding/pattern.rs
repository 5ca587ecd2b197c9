//! Which leaf, and which path: patterns of names with `*` for any one and `**` for any number of them.

/// A pattern over names in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Name(String),
    One,
    Any,
}

impl Pattern {
    /// A leaf, as the configuration writes it: `payment.card.*`. A dot that is part of a name is written `\.`. An XML attribute
    /// is `element.@name`, an item of a list its number or `*`. `None` for an empty name.
    pub fn leaf(text: &str) -> Option<Self> {
        let mut names = vec![String::new()];
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            match char {
                '.' => names.push(String::new()),
                '\\' => names.last_mut()?.push(chars.next()?),
                other => names.last_mut()?.push(other),
            }
        }
        Self::of(names)
    }

    /// A path of a URL: `/v1/customers/*/cards`. `None` if it does not begin with a slash or has an empty segment.
    pub fn path(text: &str) -> Option<Self> {
        Self::of(text.strip_prefix('/')?.split('/').map(str::to_owned).collect())
    }

    fn of(names: Vec<String>) -> Option<Self> {
        let part = |name: String| match name.as_str() {
            "" => None,
            "*" => Some(Part::One),
            "**" => Some(Part::Any),
            _ => Some(Part::Name(name)),
        };
        names.into_iter().map(part).collect::<Option<_>>().map(Self)
    }

    /// Whether these names, in this row, are meant.
    pub fn fits<T: AsRef<str>>(&self, names: &[T]) -> bool {
        fits(&self.0, names, |wanted, name| wanted == name)
    }

    /// The same, whatever the case of letters.
    pub fn fits_any_case<T: AsRef<str>>(&self, names: &[T]) -> bool {
        fits(&self.0, names, str::eq_ignore_ascii_case)
    }

    /// The names, if the pattern means one leaf and no other.
    pub fn exact(&self) -> Option<Vec<&str>> {
        let name = |part: &'_ Part| match part {
            Part::Name(_) => true,
            Part::One | Part::Any => false,
        };
        self.0.iter().all(name).then(|| {
            self.0
                .iter()
                .filter_map(|part| match part {
                    Part::Name(name) => Some(name.as_str()),
                    Part::One | Part::Any => None,
                })
                .collect()
        })
    }
}

/// One row of a table for each part, so that no pattern takes longer than its length times the names'.
fn fits<T: AsRef<str>>(parts: &[Part], names: &[T], is_same: impl Fn(&str, &str) -> bool) -> bool {
    // `reached[n]`: the parts so far can mean the first n names.
    let mut reached = vec![false; names.len() + 1];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    for part in parts {
        let mut next = vec![false; names.len() + 1];
        for (at, slot) in next.iter_mut().enumerate() {
            let before = at.checked_sub(1).and_then(|at| reached.get(at)).copied().unwrap_or(false);
            let name = at.checked_sub(1).and_then(|at| names.get(at));
            *slot = match part {
                Part::Name(wanted) => before && name.is_some_and(|name| is_same(wanted, name.as_ref())),
                Part::One => before,
                Part::Any => reached.iter().take(at + 1).any(|reached| *reached),
            };
        }
        reached = next;
    }
    reached.last().copied().unwrap_or(false)
}

/// The names of a form's key: `card[number]` is two; a key whose brackets do not pair is one.
pub fn names_of_key(key: &str) -> Vec<String> {
    let whole = || vec![key.to_owned()];
    let Some((first, rest)) = key.split_once('[') else { return whole() };
    let Some(rest) = rest.strip_suffix(']') else { return whole() };
    let mut names = vec![first];
    names.extend(rest.split("]["));
    let plain = |name: &&str| !name.is_empty() && !name.contains(['[', ']']);
    if names.iter().all(plain) { names.into_iter().map(str::to_owned).collect() } else { whole() }
}

/// A form's key of these names.
pub fn key_of_names(names: &[&str]) -> String {
    let mut names = names.iter();
    let first = names.next().copied().unwrap_or_default().to_owned();
    names.fold(first, |key, name| key + "[" + name + "]")
}

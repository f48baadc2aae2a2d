//! A list to choose from, narrowed by typing.

/// One line of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    pub id: String,
    pub label: String,
    /// Beside the label, dim.
    pub detail: String,
    /// The one in use.
    pub current: bool,
}

#[derive(Debug, Default)]
pub struct Picker {
    pub filter: String,
    choices: Vec<Choice>,
    /// Among those that match.
    at: usize,
    /// `None` until the gateway answered; then perhaps why there is nothing.
    pub state: State,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Loading,
    Ready,
    Failed(String),
}

impl Picker {
    pub fn fill(&mut self, choices: Vec<Choice>) {
        let before = self.chosen().map(|choice| choice.id.clone());
        let wanted = before.or_else(|| choices.iter().find(|choice| choice.current).map(|choice| choice.id.clone()));
        self.choices = choices;
        self.state = State::Ready;
        let at = self.matching().position(|choice| Some(&choice.id) == wanted.as_ref());
        self.at = at.unwrap_or(0);
    }

    /// The choices that contain every typed word.
    pub fn matching(&self) -> impl Iterator<Item = &Choice> {
        let words: Vec<String> = self.filter.split_whitespace().map(str::to_lowercase).collect();
        self.choices.iter().filter(move |choice| {
            let text = format!("{} {} {}", choice.id, choice.label, choice.detail).to_lowercase();
            words.iter().all(|word| text.contains(word))
        })
    }

    pub fn at(&self) -> usize {
        self.at
    }

    pub fn chosen(&self) -> Option<&Choice> {
        self.matching().nth(self.at)
    }

    pub fn step(&mut self, by: isize) {
        let last = self.matching().count().saturating_sub(1);
        self.at = self.at.saturating_add_signed(by).min(last);
    }

    pub fn typed(&mut self, c: char) {
        self.filter.push(c);
        self.at = 0;
    }

    pub fn erased(&mut self) {
        self.filter.pop();
        self.at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_narrows() {
        let choice =
            |id: &str, current| Choice { id: id.into(), label: id.to_uppercase(), current, ..Choice::default() };
        let mut picker = Picker::default();
        picker.fill(vec![choice("alpha one", false), choice("beta", true), choice("alpha two", false)]);
        assert_eq!(picker.chosen().map(|choice| choice.id.as_str()), Some("beta"), "the current one first");
        for (typed, expected) in [("alpha", Some("alpha one")), ("two al", Some("alpha two")), ("zz", None)] {
            picker.filter.clear();
            typed.chars().for_each(|c| picker.typed(c));
            assert_eq!(picker.chosen().map(|choice| choice.id.as_str()), expected, "{typed}");
        }
        picker.filter.clear();
        picker.step(5);
        assert_eq!(picker.at(), 2);
        picker.step(-9);
        assert_eq!(picker.at(), 0);
        // Filled anew, the choice stays where it was.
        picker.step(1);
        picker.fill(vec![choice("new", false), choice("alpha one", false), choice("beta", false)]);
        assert_eq!(picker.chosen().map(|choice| choice.id.as_str()), Some("beta"));
    }
}

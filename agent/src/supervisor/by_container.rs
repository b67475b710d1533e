//! Something for each container of a pod, by its name.

/// As a map, of the few that a pod has: a tree would take room for eleven.
pub struct ByContainer<T>(Vec<(String, T)>);

impl<T> Default for ByContainer<T> {
    fn default() -> ByContainer<T> {
        ByContainer(Vec::new())
    }
}

impl<T> ByContainer<T> {
    /// What there is of `name`.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Puts `value` in the place of what there was.
    pub fn insert(&mut self, name: String, value: T) {
        self.remove(&name);
        self.0.reserve_exact(1);
        self.0.push((name, value));
    }

    /// Takes what there is of `name` away.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
        self.0.shrink_to_fit();
    }

    /// All, without their names.
    pub fn into_values(self) -> impl Iterator<Item = T> {
        self.0.into_iter().map(|(_, value)| value)
    }
}

//! What is counted in the crash harness, for whoever reads the result.

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) acts: usize,
    pub(crate) kills: usize,
    pub(crate) cuts: usize,
    /// How long it took in each round until the registries agreed, in seconds.
    pub(crate) agreed: Vec<f64>,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut agreed = self.agreed.clone();
        agreed.sort_by(f64::total_cmp);
        let at = |place: usize| agreed.get(place).copied().unwrap_or_default();
        let (middle, longest) = (at(agreed.len() / 2), at(agreed.len().saturating_sub(1)));
        write!(
            f,
            "{} commands, {} kills, {} partitions; registries agree after {middle:.1} s (median), {longest:.1} s (longest)",
            self.acts, self.kills, self.cuts
        )
    }
}

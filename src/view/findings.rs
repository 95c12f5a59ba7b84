//! What `preflight` has found, as a table.

use super::aligned;
use crate::commands::preflight::Finding;

/// The table, worst last, so that it is read first in a terminal.
pub(crate) fn table(findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.verdict);
    let row = |finding: &Finding| {
        let Finding {
            verdict,
            object,
            message,
        } = finding;
        format!("{}\t{object}\t{message}\n", verdict.word())
    };
    let rows: String = sorted.into_iter().map(row).collect();
    aligned(&format!("VERDICT\tOBJECT\tFINDING\n{rows}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::preflight::Verdict;

    #[test]
    fn what_stops_stands_last() {
        let finding = |verdict, object: &str| Finding {
            verdict,
            object: object.to_owned(),
            message: "because".to_owned(),
        };
        let findings = [finding(Verdict::Stop, "a"), finding(Verdict::Ok, "longer")];
        let expected =
            "VERDICT  OBJECT  FINDING\nok       longer  because\nstop     a       because\n";
        assert_eq!(table(&findings), expected);
    }
}

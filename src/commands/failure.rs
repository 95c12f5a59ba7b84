//! What went wrong, in the words that kubectl and Argo's plugin use for it.

use std::error::Error;
use std::io;

/// What went wrong, for a person: without `Error:` before it.
pub(crate) fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let (said, is_all) = one(cause);
        // Messages of libraries often repeat the one they wrap.
        if !text.ends_with(&said) {
            let separator = if text.is_empty() { "" } else { ": " };
            text += &format!("{separator}{said}");
        }
        if is_all {
            break;
        }
    }
    text
}

/// Whether nobody reads our output any more; that is no failure of ours.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// What one error of a chain says, and whether that is all there is to say.
fn one(error: &(dyn Error + 'static)) -> (String, bool) {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => {
            let said = match status.message.trim() {
                "" => status.reason.clone(),
                "404 page not found" => "the server doesn't have this kind of object: are the CRDs installed?".to_owned(),
                message => message.to_owned(),
            };
            (said, true)
        }
        Some(error) if is_refused(error) => {
            ("the connection to the API server was refused: is it running? (`sidestep run` starts one)".to_owned(), true)
        }
        Some(_) | None => (error.to_string(), false),
    }
}

fn is_refused<'a>(error: &'a (dyn Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |&error: &&'a (dyn Error + 'static)| {
        error.source()
    });
    causes
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn api(message: &str, code: u16) -> anyhow::Error {
        kube::Error::Api(Status::failure(message, "Reason").with_code(code).boxed()).into()
    }

    #[test]
    fn the_api_servers_own_words_are_enough() {
        let cases = [
            (
                api("rollouts.argoproj.io \"x\" not found", 404),
                "rollouts.argoproj.io \"x\" not found",
            ),
            (
                api("404 page not found\n", 404),
                "the server doesn't have this kind of object: are the CRDs installed?",
            ),
            (api("", 500), "Reason"),
            (anyhow::anyhow!("inner").context("outer"), "outer: inner"),
            (api("no", 403).context("outer"), "outer: no"),
            (
                anyhow::anyhow!("inner").context("outer: inner"),
                "outer: inner",
            ),
        ];
        for (error, said) in cases {
            assert_eq!(text(&error), said, "{error:?}");
        }
    }

    #[test]
    fn a_refused_connection_says_what_to_do() {
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
        let error = anyhow::Error::from(kube::Error::Service(refused.into()));
        assert!(
            text(&error).contains("`sidestep run` starts one"),
            "{}",
            text(&error)
        );
    }

    #[test]
    fn a_reader_who_left_is_no_failure() {
        assert!(is_broken_pipe(
            &io::Error::from(io::ErrorKind::BrokenPipe).into()
        ));
        assert!(!is_broken_pipe(
            &io::Error::from(io::ErrorKind::NotFound).into()
        ));
    }
}

//! What went wrong, in the words that kubectl and Argo's plugin use for it.

use std::error::Error;
use std::io;

/// What went wrong, for a person: one line, without `Error:` before it.
pub(crate) fn text(error: &anyhow::Error) -> String {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => match status.message.trim() {
            "" => status.reason.clone(),
            "404 page not found" => {
                "the server doesn't have this kind of object: are the CRDs installed?".to_owned()
            }
            message => message.to_owned(),
        },
        Some(error) if is_refused(error) => {
            "the API server refused the connection: is it running? (`sidestep run` starts one)"
                .to_owned()
        }
        Some(error) => chain(error),
        None => format!("{error:#}"),
    }
}

/// Whether nobody reads our output any more; that is no failure of ours.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn is_refused(error: &kube::Error) -> bool {
    causes(error).any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    })
}

/// The error and its causes, each once: kube's own messages repeat what they wrap.
fn chain(error: &kube::Error) -> String {
    let mut text = String::new();
    for cause in causes(error) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            let separator = if text.is_empty() { "" } else { ": " };
            text += &format!("{separator}{cause}");
        }
    }
    text
}

fn causes<'a>(error: &'a kube::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let first: &'a (dyn Error + 'static) = error;
    std::iter::successors(Some(first), |&error| error.source())
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

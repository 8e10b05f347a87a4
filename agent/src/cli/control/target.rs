//! Which agent is meant.

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::{
        finding::{About, Finding},
        load,
    },
    config::{Listen, Pipeline},
    control::client::Target,
};

/// Which agent is meant, for verbs that name nothing else.
#[derive(Clone, Debug, Default, Args)]
pub struct Which {
    /// Its pipeline file, as `--pipeline`; goes before all else that says which agent is meant.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    at: At,
}

impl Which {
    /// The agent that is meant.
    pub(super) fn at(&self) -> At {
        match &self.file {
            Some(file) => {
                At { control: None, state: None, pipeline: Some(file.clone()), ..self.at.clone() }
            }
            None => self.at.clone(),
        }
    }
}

/// Which agent is meant.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which agent")]
pub struct At {
    /// Where it listens: `unix:` and the path of its socket, `http://host:port` or
    /// `https://host:port`.
    #[arg(long, value_name = "ADDRESS", env = "SIDESTREAM_CONTROL")]
    pub control: Option<String>,
    /// Its state directory, where its socket is by default.
    #[arg(long, value_name = "DIRECTORY", env = "SIDESTREAM_STATE")]
    pub state: Option<PathBuf>,
    /// Its pipeline file, which says where it listens.
    #[arg(long, value_name = "FILE", env = "SIDESTREAM_PIPELINE")]
    pub pipeline: Option<PathBuf>,
    /// The file of the token that it asks for; goes before the pipeline file's.
    #[arg(long, value_name = "FILE", env = "SIDESTREAM_TOKEN_FILE", hide_short_help = true)]
    pub token_file: Option<PathBuf>,
    /// The file of the root that its certificate is from, PEM.
    #[arg(long, value_name = "FILE", env = "SIDESTREAM_CA", hide_short_help = true)]
    pub ca: Option<PathBuf>,
    /// The file of the certificate to show to it, PEM.
    #[arg(long, value_name = "FILE", requires = "key", hide_short_help = true)]
    pub certificate: Option<PathBuf>,
    /// The file of that certificate's key, PEM.
    #[arg(long, value_name = "FILE", requires = "certificate", hide_short_help = true)]
    pub key: Option<PathBuf>,
}

impl At {
    /// Where to connect to.
    pub(super) fn target(&self) -> Result<Target, Vec<Finding>> {
        let mut target = Target {
            token_file: self.token_file.clone(),
            ca: self.ca.clone(),
            identity: self.certificate.clone().zip(self.key.clone()),
            ..Target::default()
        };
        target.address = match (&self.control, &self.state, &self.pipeline) {
            (Some(address), _, _) => address.clone(),
            (None, Some(state), _) => unix(&state.join(".control/socket")),
            (None, None, Some(file)) => {
                let pipeline = load(file)?;
                if target.token_file.is_none() {
                    target.token_file.clone_from(&pipeline.control.token_file);
                }
                address(&pipeline)?
            }
            (None, None, None) => {
                return Err(vec![Finding {
                    remedy: "name it with `--pipeline`, `--state` or `--control`, or set \
                             SIDESTREAM_PIPELINE, SIDESTREAM_STATE or SIDESTREAM_CONTROL"
                        .to_owned(),
                    ..Finding::new(About::Agent, "it is not said which agent is meant")
                }]);
            }
        };
        Ok(target)
    }
}

fn address(pipeline: &Pipeline) -> Result<String, Vec<Finding>> {
    match &pipeline.control.listen {
        Listen::Unix(path) => Ok(unix(path)),
        Listen::Tcp(address) => {
            let scheme = if pipeline.control.tls.is_some() { "https" } else { "http" };
            Ok(format!("{scheme}://{address}"))
        }
        Listen::Off => Err(vec![Finding {
            remedy: "remove `control.listen: off` and start it again".to_owned(),
            ..Finding::new(About::Agent, "the agent of this pipeline file listens nowhere")
        }]),
    }
}

fn unix(path: &std::path::Path) -> String {
    format!("unix:{}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_before_all_else() {
        let at = At { control: Some("unix:/x".to_owned()), ..At::default() };
        let file = Some(PathBuf::from("p.yaml"));
        assert_eq!(Which { file: None, at: at.clone() }.at().control, at.control);
        let named = Which { file: file.clone(), at }.at();
        assert_eq!((named.control, named.pipeline), (None, file));
    }
}

use super::*;

fn model() -> DiffusionModel {
    let config = UnetConfig {
        in_channels: 1,
        out_channels: 1,
        down_block_types: vec!["DownBlock2D".into()],
        up_block_types: vec!["AttnUpBlock2D".into()],
        block_out_channels: vec![4],
        layers_per_block: 1,
        norm_num_groups: 2,
        attention_head_dim: None,
        ..UnetConfig::default()
    };
    let params = config.initial_params(1).unwrap();
    let scheduler = SchedulerConfig::from_json(r#"{"num_train_timesteps": 20, "prediction_type": "v_prediction"}"#).unwrap();
    DiffusionModel { about: Some(json!({"range": [-1, 1]})), ..DiffusionModel::new(config, params, Some(scheduler)).unwrap() }
}

#[test]
fn a_directory_gives_back_the_model() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let model = model();
    model.write(root, Precision::F32).unwrap();
    let mut read = DiffusionModel::read(root).unwrap();
    assert_eq!(read.scheduler.as_mut().unwrap().class_name.take().as_deref(), Some("DDPMScheduler"));
    assert_eq!(read, model);
    assert_eq!((read.prediction().unwrap(), read.schedule().unwrap().steps().unwrap()), (Prediction::V, 20));
    assert!(read.denoiser(&Device::flex()).is_ok());

    // A pipeline's layout.
    for (file, folder) in [(CONFIG, "unet"), (WEIGHTS, "unet"), (SCHEDULER, "scheduler")] {
        fs::create_dir_all(root.join(folder)).unwrap();
        fs::rename(root.join(file), root.join(folder).join(file)).unwrap();
    }
    let nested = DiffusionModel::read(root).unwrap();
    assert_eq!((nested.params, nested.scheduler.is_some()), (model.params, true));
}

#[test]
fn directories_that_are_not_models() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let refuse = |part: &str| {
        let error = DiffusionModel::read(root).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refuse("config.json");
    let mut model = model();
    model.write(root, Precision::F16).unwrap();
    fs::write(root.join(SCHEDULER), r#"{"num_train_timesteps": 1000000000000}"#).unwrap();
    refuse("num_train_timesteps is 1000000000000, above the limit");
    fs::write(root.join(SCHEDULER), "[").unwrap();
    refuse("scheduler_config.json");
    fs::write(root.join(CONFIG), "{\"act_fn\": 3}").unwrap();
    refuse("config.json: the architecture");
    model.params = Params::read(&root.join(WEIGHTS)).unwrap();
    model.config.layers_per_block = 2;
    model.write(root, Precision::F32).unwrap();
    refuse("missing down_blocks.0.resnets.1.conv1.bias (nearest: ");
    fs::rename(root.join(WEIGHTS), root.join(WEIGHTS).with_extension("bin")).unwrap();
    refuse("convert once with: python -c");
    fs::remove_file(root.join(WEIGHTS).with_extension("bin")).unwrap();
    refuse(WEIGHTS);
}

#[test]
fn a_model_without_a_process_still_predicts() {
    let model = DiffusionModel { scheduler: None, ..model() };
    assert!(model.unet(&Device::flex(), Tracking::Frozen).is_ok());
    assert!(model.denoiser(&Device::flex()).err().unwrap().to_string().contains("scheduler_config.json"));
}

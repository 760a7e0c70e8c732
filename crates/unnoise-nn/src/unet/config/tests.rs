use super::*;
use serde_json::json;

fn read(json: Value) -> Result<UnetConfig> {
    UnetConfig::from_json(json, Path::new("config.json"))
}

/// google/ddpm-cifar10-32 and google/ddpm-{celebahq,church,cat,bedroom}-256, from their config.json.
fn google(widths: &[usize], down_attention: usize, up_attention: usize) -> UnetConfig {
    let names = |plain: &str, at: usize| -> Vec<String> {
        (0..widths.len()).map(|i| if i == at { format!("Attn{plain}") } else { plain.into() }).collect()
    };
    read(json!({
        "_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu", "attention_head_dim": null,
        "block_out_channels": widths, "center_input_sample": false, "down_block_types": names("DownBlock2D", down_attention),
        "downsample_padding": 0, "flip_sin_to_cos": false, "freq_shift": 1, "in_channels": 3, "layers_per_block": 2,
        "mid_block_scale_factor": 1, "norm_eps": 1e-6, "norm_num_groups": 32, "out_channels": 3, "sample_size": 32,
        "time_embedding_type": "positional", "up_block_types": names("UpBlock2D", up_attention),
    }))
    .unwrap()
}

fn count(config: &UnetConfig) -> usize {
    config.parameter_shapes().unwrap().values().map(|shape| shape.iter().product::<usize>()).sum()
}

/// The sizes of the published files.
#[test]
fn parameter_counts_of_published_networks() {
    let cifar = google(&[128, 256, 256, 256], 1, 2);
    assert_eq!((count(&cifar), cifar.parameter_shapes().unwrap().len()), (35_746_307, 328));
    assert_eq!(count(&google(&[128, 128, 256, 256, 512, 512], 4, 1)), 113_673_219);
    // The parameters of OpenAI's 256x256 ADM in diffusers' blocks; attention at three resolutions.
    let attention = ["ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"];
    let adm = read(json!({
        "down_block_types": [attention[0], attention[1], attention[2], "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"],
        "block_out_channels": [256, 256, 512, 512, 1024, 1024], "downsample_type": "resnet", "upsample_type": "resnet",
        "attention_head_dim": 64, "attn_norm_num_groups": 32, "resnet_time_scale_shift": "scale_shift", "out_channels": 6,
    }))
    .unwrap();
    assert_eq!(count(&adm), 552_814_086);
}

#[test]
fn a_config_survives_its_file() {
    let config = google(&[64, 128], 1, 0);
    assert_eq!(read(config.to_json()).unwrap(), config);
    assert_eq!(read(json!({})).unwrap(), UnetConfig::default());
    assert_eq!(read(json!({"attention_head_dim": null})).unwrap().attention_head_dim, None);
}

#[test]
fn older_keys_are_understood() {
    let config = read(json!({
        "_class_name": "UNetUnconditionalModel", "image_size": 32, "num_res_blocks": 1, "ch": 32, "ch_mult": [1, 2],
        "down_blocks": ["UNetResDownBlock2D", "UNetResAttnDownBlock2D"], "up_blocks": ["UNetResAttnUpBlock2D", "UNetResUpBlock2D"],
        "downscale_freq_shift": 1, "resnet_num_groups": 16, "resnet_act_fn": "swish", "resnet_eps": 1e-6, "num_head_channels": 16,
    }))
    .unwrap();
    assert_eq!((config.block_out_channels, config.layers_per_block, config.norm_num_groups), (vec![32, 64], 1, 16));
    assert_eq!(config.down_block_types, ["DownBlock2D", "AttnDownBlock2D"]);
    assert_eq!(
        (config.freq_shift, config.norm_eps, config.attention_head_dim, config.act_fn),
        (1.0, 1e-6, Some(16), Activation::Swish)
    );
}

#[test]
fn what_is_not_served_is_named() {
    let blocks = |down: &str| json!({"down_block_types": [down, "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"], "block_out_channels": [32, 32]});
    for (json, part) in [
        (blocks("SkipDownBlock2D"), "the block SkipDownBlock2D is not supported yet"),
        (blocks("KDownBlock2D"), "KDownBlock2D"),
        (json!({"time_embedding_type": "fourier"}), "time_embedding_type 'fourier'"),
        (json!({"norm_num_groups": null}), "norm_num_groups null"),
        (json!({"resnet_time_scale_shift": "spatial"}), "resnet_time_scale_shift 'spatial'"),
        (json!({"act_fn": "elu"}), "act_fn 'elu'"),
        (json!({"mid_block_type": "UNetMidBlock2DCrossAttn"}), "UNetMidBlock2DCrossAttn"),
        (json!({"_class_name": "UNet2DConditionModel"}), "UNet2DConditionModel"),
    ] {
        let error = read(json).unwrap_err();
        assert!(matches!(error, Error::NotSupportedYet { .. }) && error.to_string().contains(part), "{error}");
    }
}

#[test]
fn what_cannot_be_built_is_refused() {
    for (json, part) in [
        (json!([1]), "a JSON object"),
        (json!({"block_out_channels": []}), "block_out_channels"),
        (json!({"block_out_channels": [32, 32]}), "down_block_types"),
        (json!({"block_out_channels": [224, 448, 672, 1u64 << 40]}), "block_out_channels"),
        (json!({"block_out_channels": [224, 448, 672, 897]}), "norm_num_groups"),
        (json!({"norm_num_groups": 0}), "norm_num_groups"),
        (json!({"attention_head_dim": 0}), "attention_head_dim"),
        (json!({"attention_head_dim": 9}), "attention_head_dim"),
        (json!({"downsample_padding": 2}), "downsample_padding"),
        (json!({"layers_per_block": -1}), "invalid value"),
        (json!({"freq_shift": 112}), "freq_shift"),
        (json!({"mid_block_scale_factor": 0}), "mid_block_scale_factor"),
        (json!({"dropout": 1}), "dropout"),
        (json!({"class_embed_type": "projection"}), "projection"),
    ] {
        let error = read(json).unwrap_err();
        assert!(matches!(error, Error::File { .. }) && error.to_string().contains(part), "{part}: {error}");
    }
}

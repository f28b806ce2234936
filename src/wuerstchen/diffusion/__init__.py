"""All the mathematics of diffusion, as functions.

    schedule ─▶ times, targets
             └▶ samplers ◀─ a denoiser, with or without guidance

Time t is a float in [0, 1]: 0 is data, 1 is noise. alpha_bar(t) is the fraction of the variance
that is data at time t. Networks predict the noise, or something that implies it.
B images, C channels, H x W cells.
"""

from wuerstchen.diffusion.guidance import Denoiser as Denoiser
from wuerstchen.diffusion.guidance import Guidance as Guidance
from wuerstchen.diffusion.guidance import Network as Network
from wuerstchen.diffusion.guidance import guided as guided
from wuerstchen.diffusion.guidance import unguided as unguided
from wuerstchen.diffusion.samplers import SAMPLERS as SAMPLERS
from wuerstchen.diffusion.samplers import NoiseSource as NoiseSource
from wuerstchen.diffusion.samplers import Sampler as Sampler
from wuerstchen.diffusion.samplers import ddim as ddim
from wuerstchen.diffusion.samplers import ddim_published as ddim_published
from wuerstchen.diffusion.samplers import ddpm as ddpm
from wuerstchen.diffusion.samplers import euler_ancestral as euler_ancestral
from wuerstchen.diffusion.samplers import evaluations as evaluations
from wuerstchen.diffusion.schedule import HIGH_NOISE_TIME as HIGH_NOISE_TIME
from wuerstchen.diffusion.schedule import LEAST as LEAST
from wuerstchen.diffusion.schedule import MOST as MOST
from wuerstchen.diffusion.schedule import add_noise as add_noise
from wuerstchen.diffusion.schedule import alpha_bar as alpha_bar
from wuerstchen.diffusion.schedule import alpha_bar_at as alpha_bar_at
from wuerstchen.diffusion.schedule import data_weight as data_weight
from wuerstchen.diffusion.schedule import log_snr_at as log_snr_at
from wuerstchen.diffusion.schedule import p2_weight as p2_weight
from wuerstchen.diffusion.schedule import time_of as time_of
from wuerstchen.diffusion.schedule import training_times as training_times
from wuerstchen.diffusion.targets import LOSS_WEIGHTS as LOSS_WEIGHTS
from wuerstchen.diffusion.targets import noise_of as noise_of
from wuerstchen.diffusion.times import DATA_TIMES as DATA_TIMES
from wuerstchen.diffusion.times import TIMES as TIMES
from wuerstchen.diffusion.times import log_snr_times as log_snr_times
from wuerstchen.diffusion.times import published_times as published_times
from wuerstchen.diffusion.times import tuned_times as tuned_times
from wuerstchen.diffusion.times import uniform_times as uniform_times

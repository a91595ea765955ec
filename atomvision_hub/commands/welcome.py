"""`atomvision` without arguments: what it is for, the first three commands, where to go next."""

from __future__ import annotations

GUIDE = """\
AtomVision Hub: datasets, simulators and models for atomic-resolution images (STEM, STM).

Three things to try, all offline:

  atomvision analyze scan.dm4             a micrograph of yours: its atoms, its lattice, a picture
  atomvision build stem2d --source reference --out my_dataset
                                          119 real monolayers become a dataset of simulated images
  atomvision demo --out demo-output       the whole road, dataset to trained model, in minutes

Then, by what you have

  images       predict, analyze, spacings      which lattice, which atoms, which planes
               metadata template               write down what the file does not say
  crystals     build --source my_crystals/     images with masks and atom positions
  a dataset    validate, cluster, push         check it, look at it, publish it on the Hugging Face Hub
  a GPU        train classifier                also segmenter, alignn, srgan, autoencoder

  atomvision COMMAND --help               options and an example of every command
  atomvision --help                       all commands
  atomvision --install-completion         the Tab key completes commands, datasets, configs
  atomvision doctor                       what is installed here and what is missing
"""

# A gate in Packer: the build fails if an AMI is not billed as expected.
#
# Needs ami-guard on the PATH, and policy.toml in the folder in which you run `packer build`. `ami-guard init '<folder>'`
# writes policy.toml. Packer sets the tags before it runs post-processors, so ami-guard sees them.

packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.3"
    }
  }
}

source "amazon-ebssurrogate" "rhel9" {
  ami_name                = "rhel9-golden-{{timestamp}}"
  ami_regions             = ["eu-west-1", "us-east-1"]
  ami_virtualization_type = "hvm"
  instance_type           = "m5.large"
  region                  = "eu-west-1"
  source_ami              = "<a Red Hat Enterprise Linux AMI>"
  ssh_username            = "ec2-user"

  # With RegisterImage, which is the default, the AMI loses its billing code. With CreateImage it keeps the code.
  use_create_image = true

  launch_block_device_mappings {
    device_name           = "/dev/xvdf"
    volume_size           = 10
    volume_type           = "gp3"
    delete_on_termination = true
  }

  ami_root_device {
    source_device_name    = "/dev/xvdf"
    device_name           = "/dev/sda1"
    volume_size           = 10
    volume_type           = "gp3"
    delete_on_termination = true
  }

  # ami-guard compares what the AMI is billed as with this.
  tags = {
    "ami-billing-guard:expect" = "RedHat"
  }
}

build {
  sources = ["source.amazon-ebssurrogate.rhel9"]

  provisioner "shell" {
    script = "<the script that installs the operating system on /dev/xvdf>"
  }

  # One chain, and the manifest comes first. It makes Packer keep the AMIs if the check fails, so that you can see why.
  post-processors {
    post-processor "manifest" {
      output = "manifest.json"
    }

    post-processor "shell-local" {
      inline = [
        "ami-guard check --packer-manifest manifest.json --policy policy.toml --wait 300",
      ]
    }
  }
}

"""A folder of images by class."""

import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from imagenet_synth.core.errors import InputError
from imagenet_synth.data import image_folder
from imagenet_synth.data.image_folder import FolderSource, folder_contents


def _make(root, per_class=10):
  for label, name in enumerate(('cat', 'ant', 'bee')):
    (root / 'train' / name).mkdir(parents=True)
    for i in range(per_class):
      suffix = ('jpg', 'PNG', 'jpeg')[i % 3]
      image = Image.new('RGB' if i % 2 else 'L', (8 + i, 9), (label * 80 + i,) * 3 if i % 2 else 7)
      image.save(root / 'train' / name / f'{i}.{suffix}', suffix if suffix != 'jpg' else 'jpeg')
  return root


def _open(root, split='train'):
  return FolderSource(root, split, root / 'cache')


def test_labels_are_places_in_the_sorted_classes(tmp_path):
  source = _open(_make(tmp_path))
  assert source.class_names == ('ant', 'bee', 'cat') and len(source) == 30
  for example in source:
    assert source.class_names[example['label']] == example['file_name'].split('/')[0]
    assert example['image'].shape[2] == 3 and example['image'].dtype == np.uint8
  assert np.bincount([example['label'] for example in source]).tolist() == [10, 10, 10]


def test_the_order_is_mixed_and_fixed(tmp_path):
  source = _open(_make(tmp_path))
  labels = [example['label'] for example in source]
  assert labels != sorted(labels)
  again = [example['file_name'] for example in _open(tmp_path)]
  assert again == [example['file_name'] for example in source]


def test_parts_of_a_split_are_its_own_and_together_all(tmp_path):
  names = lambda split: [example['file_name'] for example in _open(tmp_path, split)]
  _make(tmp_path)
  whole = names('train')
  assert names('train[:80%]') == whole[:24] and names('train[80%:]') == whole[24:]
  assert names('train[3:7]') == whole[3:7] and names('train[:]') == whole


def test_broken_files_are_named_and_left_out(tmp_path, capsys):
  _make(tmp_path)
  broken = tmp_path / 'train/bee/3.jpg'
  broken.write_bytes(broken.read_bytes()[:-40])
  (tmp_path / 'train/cat/x.png').write_bytes(b'nothing')
  (tmp_path / 'train/cat/notes.txt').write_text('no image')
  source = _open(tmp_path)
  assert len(source) == 29
  assert not {'bee/3.jpg', 'cat/x.png'} & {example['file_name'] for example in source}
  said = capsys.readouterr().err
  assert 'left out: 1 file of a format that is not read (1 .txt); 2 of 31 files that cannot be' in said
  # what is wrong with each, and what is wrong with all once
  assert said.count('decoded') == 1
  assert '(bee/3.jpg: ' in said and ', cat/x.png: not an image file; all are in ' in said


def test_files_are_checked_once_and_again_when_they_change(tmp_path, monkeypatch):
  _make(tmp_path)
  checked = []
  decode = image_folder.decode_image

  def counting(data, num_channels, name):
    checked.append(name)
    return decode(data, num_channels, name)

  monkeypatch.setattr(image_folder, 'decode_image', counting)
  _open(tmp_path)
  assert len(checked) == 30
  _open(tmp_path)
  assert len(checked) == 30
  (tmp_path / 'train/ant/0.jpg').write_bytes(b'damaged')
  Image.new('L', (4, 4)).save(tmp_path / 'train/ant/new.png')
  assert len(_open(tmp_path)) == 30
  assert sorted(checked[30:]) == ['0.jpg', 'new.png']


def test_sides_are_found_with_the_check_and_kept(tmp_path, monkeypatch):
  source = _open(_make(tmp_path))
  expected = [min(8 + int(example['file_name'].split('/')[1].split('.')[0]), 9) for example in source]
  for again in (source, _open(tmp_path), _open(tmp_path, 'train[10:]')):
    sides = again.sides(tmp_path / 'unused')
    assert sides.pixels.tolist() == expected[-len(again) :]
    assert [name.decode() for name in sides.names] == [example['file_name'] for example in again]
  assert set(expected) == {8, 9}


def test_files_of_which_an_earlier_version_kept_no_size_are_checked_again(tmp_path):
  source = _open(_make(tmp_path))
  (cache,) = (tmp_path / 'cache').iterdir()
  kept = json.loads(cache.read_text())
  kept['files'] = {file: look[:4] for file, look in kept['files'].items()}
  cache.write_text(json.dumps(kept))
  again = _open(tmp_path)
  assert again.version == source.version
  np.testing.assert_array_equal(again.sides(tmp_path).pixels, source.sides(tmp_path).pixels)


def test_a_check_that_was_killed_goes_on_where_it_was_saved(tmp_path, monkeypatch):
  _make(tmp_path)
  monkeypatch.setattr(image_folder, '_SAVED_EVERY', -1)
  decode = image_folder.decode_image

  def killed(data, num_channels, name):
    if name == '4.PNG':
      raise KeyboardInterrupt
    return decode(data, num_channels, name)

  monkeypatch.setattr(image_folder, 'decode_image', killed)
  with pytest.raises(KeyboardInterrupt):
    _open(tmp_path)
  (cache,) = (tmp_path / 'cache').iterdir()
  assert list(json.loads(cache.read_text())['files']) == [
    f'ant/{i}' for i in ('0.jpg', '1.PNG', '2.jpeg', '3.jpg')
  ]


def test_the_version_changes_with_the_files(tmp_path):
  before = _open(_make(tmp_path)).version
  assert _open(tmp_path).version == before != _open(tmp_path, 'train[:50%]').version
  Image.new('L', (4, 4)).save(tmp_path / 'train/ant/0.jpg')
  assert _open(tmp_path).version != before


def test_a_file_that_is_damaged_later_stops_the_run_by_its_name(tmp_path):
  source = _open(_make(tmp_path))
  name = source[4]['file_name']
  (tmp_path / 'train' / name).write_bytes(b'damaged')
  with pytest.raises(InputError, match=f'{name}: cannot be decoded'):
    source[4]


def test_wrong_folders_and_splits_are_refused(tmp_path):
  _make(tmp_path)
  with pytest.raises(InputError, match='test: no such folder; expected a folder for each class'):
    _open(tmp_path, 'test')
  with pytest.raises(InputError, match=r'split train\[40:\] asks for example 40, train has 30'):
    _open(tmp_path, 'train[40:]')
  with pytest.raises(InputError, match="split is 'train.a.', must be a name, or a part"):
    _open(tmp_path, 'train[a]')


@pytest.mark.parametrize('name', ['line\nbreak', 'bell\a', 'end\u2028of line'])
def test_a_class_whose_name_is_no_line_of_text_is_refused_at_the_start(name, tmp_path):
  _make(tmp_path)
  (tmp_path / 'train/cat').rename(tmp_path / 'train' / name)
  with pytest.raises(InputError, match='has a line break or another control character in its name') as error:
    folder_contents(tmp_path)
  assert str(error.value).isprintable()


def test_how_many_images_classes_have_at_most_is_known_at_the_start(tmp_path):
  _make(tmp_path)
  (tmp_path / 'train/bee/3.jpg').unlink()
  assert folder_contents(tmp_path)['train'].class_counts == (10, 9, 10)


def test_a_look_at_one_split_is_no_look_at_others(tmp_path):
  _make(tmp_path)
  (tmp_path / 'other' / 'a\nb').mkdir(parents=True)
  contents = folder_contents(tmp_path, 'train')
  assert contents['train'].class_names == ('ant', 'bee', 'cat') and contents['other'].class_names is None
  # one that is not there is known by that
  assert set(folder_contents(tmp_path, 'test')) == {'train', 'other'}
  (tmp_path / 'empty').mkdir()
  with pytest.raises(InputError, match='no images in it as empty/CLASS/FILE'):
    folder_contents(tmp_path, 'empty')


def test_names_may_be_of_any_letters(tmp_path):
  _make(tmp_path, per_class=1)
  (tmp_path / 'train/bee').rename(tmp_path / 'train/Bär')
  (tmp_path / 'train/cat/0.jpg').rename(tmp_path / 'train/cat/猫.jpg')
  source = _open(tmp_path)
  assert source.class_names == ('Bär', 'ant', 'cat')
  assert {example['file_name']: example['label'] for example in source} == {
    'Bär/0.jpg': 0,
    'ant/0.jpg': 1,
    'cat/猫.jpg': 2,
  }
  sides = source.sides(tmp_path)
  assert sorted(name.decode() for name in sides.names) == ['Bär/0.jpg', 'ant/0.jpg', 'cat/猫.jpg']
  assert sorted(source.labels()) == [0, 1, 2] and source.version == _open(tmp_path).version


@pytest.mark.skipif(sys.platform != 'linux', reason='others have no such names')
def test_files_whose_names_are_no_text_are_named_and_left_out(tmp_path, capsys):
  _make(tmp_path)
  # as archives of another time and system have them
  os.rename(tmp_path / 'train/cat/0.jpg', os.fsencode(tmp_path / 'train/cat') + b'/K\xe4tzchen.jpg')
  assert len(_open(tmp_path)) == 29
  assert '1 file with a name that is not in UTF-8 (cat/K\\udce4tzchen.jpg)' in capsys.readouterr().err


def test_a_file_of_names_beside_the_classes_is_not_left_out(tmp_path, capsys):
  _make(tmp_path)
  (tmp_path / 'train/names.txt').write_text('ant: insect')
  _open(tmp_path)
  assert 'names.txt' not in capsys.readouterr().err


def test_files_that_cannot_be_read_are_left_out_until_they_can(tmp_path, capsys, monkeypatch):
  _make(tmp_path)
  kind = type(tmp_path)
  read = kind.read_bytes

  def failing(path):
    if path.name == '3.jpg' and path.parent.name == 'bee':
      raise PermissionError(13, 'Permission denied')
    return read(path)

  with monkeypatch.context() as patch:
    patch.setattr(kind, 'read_bytes', failing)
    assert len(_open(tmp_path)) == 29
  assert '1 of 30 files that cannot be read (bee/3.jpg: Permission denied; all' in capsys.readouterr().err
  assert len(_open(tmp_path)) == 30


def test_a_class_of_broken_files_alone_is_named(tmp_path):
  _make(tmp_path, per_class=1)
  (tmp_path / 'train/bee/0.jpg').write_bytes(b'nothing')
  with pytest.raises(InputError, match="none of the images of the class 'bee' can be decoded"):
    _open(tmp_path)


def test_a_picture_of_over_100_megapixels_is_left_out_and_named(tmp_path, capsys):
  _make(tmp_path)
  # one colour: a few KB; the other is just small enough, without a warning
  Image.new('1', (12_500, 8_001)).save(tmp_path / 'train/cat/poster.png')
  Image.new('1', (12_500, 8_000)).save(tmp_path / 'train/cat/photo.png')
  assert len(_open(tmp_path)) == 31
  assert '(cat/poster.png: 12500x8001, more than 100 megapixels; all' in capsys.readouterr().err

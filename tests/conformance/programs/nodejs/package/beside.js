exports.word = () => 'imported'
